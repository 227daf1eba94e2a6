package policyhttp

import (
	"errors"
	"io"
	"net/http"
	"sync"
)

// replayBytes is how much of a request body is recorded to be sent again.
const replayBytes = 64 << 10

// replay records a request's body while it is sent, so that it can be sent again. Nothing is read before base reads it: a body
// that is written while the response is read keeps working.
type replay struct {
	src io.ReadCloser

	mu       sync.Mutex // never held while src is read
	current  *replayed
	buf      []byte
	ended    bool // src has ended, all of it is in buf
	lost     bool // some of src is not in buf, or it broke
	reading  bool // a read of src is under way
	finished bool // there will be no further attempt
}

// open returns the body for one attempt, from the beginning.
func (r *replay) open() io.ReadCloser {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.current = &replayed{r: r}
	return r.current
}

// complete reports whether the body can be sent again: base has done with it, and what was read is in memory.
func (r *replay) complete() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.lost && (r.ended || !r.reading && (r.current == nil || r.current.closed))
}

// finish says that there will be no further attempt. The source is closed now, or else when base closes what it reads.
func (r *replay) finish() {
	r.mu.Lock()
	r.finished = true
	idle := r.current == nil || r.current.closed
	r.mu.Unlock()
	if idle {
		_ = r.src.Close() // what it says would reach nobody
	}
}

// replayed is the body of one attempt.
type replayed struct {
	r      *replay
	off    int  // up to where base has read
	closed bool // guarded by replay.mu
}

// Read takes from the memory first, then from the source.
func (b *replayed) Read(p []byte) (int, error) {
	r := b.r
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case b.closed:
		return 0, http.ErrBodyReadAfterClose
	case b.off < len(r.buf):
		n := copy(p, r.buf[b.off:])
		b.off += n
		return n, nil
	case r.ended:
		return 0, io.EOF
	}
	n, err := r.read(p)
	b.off += n
	return n, err
}

// read reads the source with mu released meanwhile. It is called with mu held.
func (r *replay) read(p []byte) (int, error) {
	r.reading = true
	r.mu.Unlock()
	n, err := r.src.Read(p)
	r.mu.Lock()
	r.reading = false
	r.lost = r.lost || r.finished || len(r.buf)+n > replayBytes || err != nil && !errors.Is(err, io.EOF)
	if r.lost {
		r.buf = nil
	} else {
		r.buf = append(r.buf, p[:n]...)
		r.ended = err != nil
	}
	return n, err
}

// Close ends the attempt's reading. The source stays open for the next attempt.
func (b *replayed) Close() error {
	r := b.r
	r.mu.Lock()
	b.closed = true
	last := r.finished
	r.mu.Unlock()
	if last {
		return r.src.Close()
	}
	return nil
}
