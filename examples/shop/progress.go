package main

import (
	"context"
	"fmt"
	"io"
	"time"
)

// A snapshot is how far the shop has come.
type snapshot struct {
	Phase    string // "placing orders", "settling"
	Orders   int    // orders and cancellations to be placed
	Answered int
	Accepted int
	Ended    int // orders confirmed or cancelled
}

func (s snapshot) line(elapsed time.Duration) string {
	return fmt.Sprintf("%s: %s of %s answered, %s accepted, %s orders ended, %.1f s",
		s.Phase, grouped(s.Answered), grouped(s.Orders), grouped(s.Accepted), grouped(s.Ended), elapsed.Seconds())
}

// A progressStyle says how often a line is written and what surrounds it; last follows the last one.
type progressStyle struct {
	every               time.Duration
	before, after, last string
}

var (
	plainStyle    = progressStyle{every: 2 * time.Second, after: "\n"}
	terminalStyle = progressStyle{every: 500 * time.Millisecond, before: "\r\x1b[K", last: "\n"}
)

// showProgress writes to w how far the shop has come until ctx is done, and once more then: on a terminal one line that
// is rewritten twice a second, elsewhere a line every two seconds.
func showProgress(ctx context.Context, w io.Writer, look func() snapshot) {
	style := plainStyle
	if isTerminal(w) {
		style = terminalStyle
	}
	writeProgress(ctx, w, style, look)
}

// writeProgress ignores failed writes: nothing depends on them.
func writeProgress(ctx context.Context, w io.Writer, style progressStyle, look func() snapshot) {
	start := time.Now()
	tick := time.NewTicker(style.every)
	defer tick.Stop()
	write := func(after string) {
		_, _ = io.WriteString(w, style.before+look().line(time.Since(start))+after)
	}
	for {
		select {
		case <-tick.C:
			write(style.after)
		case <-ctx.Done():
			write(style.after + style.last)
			return
		}
	}
}
