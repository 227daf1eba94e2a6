package policyhttp

import (
	"bufio"
	"io"
	"net"
	"net/http"
)

// writer notes the status that a handler sends. It is passed to the handler as one of the views below, which have the optional
// methods of the original, since much code asks for them directly and not through http.ResponseController.
type writer struct {
	http.ResponseWriter
	status int // 0 until the header is sent
}

func (w *writer) written() bool { return w.status != 0 }

// Unwrap is for http.ResponseController.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// WriteHeader notes the first final status: 1xx are followed by another one, but for 101.
func (w *writer) WriteHeader(status int) {
	if w.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *writer) Write(p []byte) (int, error) {
	w.implicit()
	return w.ResponseWriter.Write(p)
}

// WriteString keeps io.WriteString from copying.
func (w *writer) WriteString(s string) (int, error) {
	w.implicit()
	return io.WriteString(w.ResponseWriter, s)
}

// ReadFrom lets io.Copy reach sendfile where the original has it.
func (w *writer) ReadFrom(src io.Reader) (int64, error) {
	w.implicit()
	return io.Copy(w.ResponseWriter, src)
}

func (w *writer) implicit() {
	if w.status == 0 {
		w.status = http.StatusOK
	}
}

// view is w with the optional methods of the original.
func (w *writer) view() http.ResponseWriter {
	_, flushes := w.ResponseWriter.(http.Flusher)
	h, hijacks := w.ResponseWriter.(http.Hijacker)
	p, pushes := w.ResponseWriter.(http.Pusher)
	switch {
	case flushes && hijacks:
		return &http1Writer{flushWriter{w}, h}
	case flushes && pushes:
		return &http2Writer{flushWriter{w}, p}
	case flushes:
		return &flushWriter{w}
	default:
		return w
	}
}

type flushWriter struct{ *writer }

// Flush sends the header too, if that has not happened.
func (w *flushWriter) Flush() { _ = w.FlushError() }

// FlushError is Flush for http.ResponseController.
func (w *flushWriter) FlushError() error {
	w.implicit()
	return http.NewResponseController(w.ResponseWriter).Flush()
}

type http1Writer struct {
	flushWriter
	hijacker http.Hijacker
}

// Hijack gives the connection to the handler, which answers for itself from then on.
func (w *http1Writer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := w.hijacker.Hijack()
	if err == nil && w.status == 0 {
		w.status = http.StatusSwitchingProtocols
	}
	return conn, rw, err
}

type http2Writer struct {
	flushWriter
	http.Pusher
}
