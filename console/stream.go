package console

import (
	"net/http"
	"strings"
	"time"
)

const (
	// backlog is how many messages may wait for one viewer before it is dropped.
	backlog = 8
	// writeTimeout is how long a viewer's connection may take to accept a message.
	writeTimeout = 10 * time.Second
	// padding fills the first buffer of a proxy that holds back short answers.
	padding = 2048
)

// viewer is an open stream.
type viewer struct {
	messages  chan []byte
	dismissed chan struct{} // closed when it is none any more
}

// frame is a server-sent event. JSON as made here has no line breaks.
func frame(event string, data []byte) []byte {
	b := make([]byte, 0, len(event)+len(data)+16)
	b = append(append(append(b, "event: "...), event...), "\ndata: "...)
	return append(append(b, data...), "\n\n"...)
}

// stream sends a snapshot and then the difference that each look makes, until the viewer goes, is too slow, or the console closes.
// Messages are made once for all viewers.
func (c *Console) stream(w http.ResponseWriter, r *http.Request) {
	c.glance(r.Context(), c.cfg.Interval)
	v := c.join()
	if v == nil {
		w.Header().Set("Retry-After", "5")
		refuse(w, http.StatusServiceUnavailable, "no more streams are served: ask for api instead")
		return
	}
	defer c.leave(v)
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store, no-transform")
	h.Set("X-Accel-Buffering", "no")
	out := http.NewResponseController(w)
	send := func(b []byte) bool {
		// A server's own WriteTimeout would end the stream; a writer without deadlines is somebody's test.
		_ = out.SetWriteDeadline(time.Now().Add(writeTimeout))
		_, err := w.Write(b)
		return err == nil && out.Flush() == nil
	}
	if !send([]byte("retry: 2000\n:" + strings.Repeat(" ", padding) + "\n\n")) {
		return
	}
	for {
		select {
		case message := <-v.messages:
			if !send(message) {
				return
			}
		case <-v.dismissed:
			return
		case <-r.Context().Done():
			return
		}
	}
}
