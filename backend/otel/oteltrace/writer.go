package oteltrace

import (
	"bufio"
	"io"
	"net"
	"net/http"
)

// writer notes the status of an answer. Handlers get it as one of the views below, which flush and hijack where the original does.
type writer struct {
	http.ResponseWriter
	status int // 0 until there is one
}

// Unwrap is for http.ResponseController.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader notes the first status that is final: 101 is, the other 1xx are not.
func (w *writer) WriteHeader(status int) {
	if w.status == 0 && (status >= http.StatusOK || status == http.StatusSwitchingProtocols) {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// ReadFrom lets io.Copy reach sendfile where the original has it.
func (w *writer) ReadFrom(src io.Reader) (int64, error) { return io.Copy(w.ResponseWriter, src) }

// final is the status of a handler that has returned: net/http sends 200 where it said none.
func (w *writer) final() int {
	if w.status == 0 {
		return http.StatusOK
	}
	return w.status
}

func (w *writer) view() http.ResponseWriter {
	_, flushes := w.ResponseWriter.(http.Flusher)
	h, hijacks := w.ResponseWriter.(http.Hijacker)
	switch {
	case flushes && hijacks:
		return &hijackWriter{flushWriter{w}, h}
	case flushes:
		return &flushWriter{w}
	default:
		return w
	}
}

type flushWriter struct{ *writer }

// Flush implements http.Flusher.
func (w *flushWriter) Flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() }

type hijackWriter struct {
	flushWriter
	hijacker http.Hijacker
}

// Hijack gives the connection to the handler, which answers for itself from then on.
func (w *hijackWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := w.hijacker.Hijack()
	if err == nil && w.status == 0 {
		w.status = http.StatusSwitchingProtocols
	}
	return conn, rw, err
}
