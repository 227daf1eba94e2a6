package natsembed

import (
	"errors"
	"fmt"
	"log/slog"
)

// logger passes the server's log lines on, and keeps the first fatal one for Start: the server reports a failed start
// only there.
type logger struct {
	out   *slog.Logger
	fatal chan error
}

func (l *logger) Noticef(format string, v ...any) { l.out.Info(fmt.Sprintf(format, v...)) }
func (l *logger) Warnf(format string, v ...any)   { l.out.Warn(fmt.Sprintf(format, v...)) }
func (l *logger) Errorf(format string, v ...any)  { l.out.Error(fmt.Sprintf(format, v...)) }
func (l *logger) Debugf(format string, v ...any)  { l.out.Debug(fmt.Sprintf(format, v...)) }
func (l *logger) Tracef(format string, v ...any)  { l.out.Debug(fmt.Sprintf(format, v...)) }

func (l *logger) Fatalf(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	l.out.Error(text)
	select {
	case l.fatal <- errors.New(text):
	default:
	}
}
