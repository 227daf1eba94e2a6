package policyhttp

import (
	"bytes"
	"io"
	"net/http"
	"sync"
	"time"
)

// How much of a failed response's body is read before it is known whether the caller will get it, and how long that may take.
const (
	aheadBytes = 64 << 10
	aheadTime  = 250 * time.Millisecond
)

// held is what a policy holds until a response's body ends. End gives it back, and says what becomes of the error that the body
// ended with; nil is a body that was read to its end, or closed before. It may be called at any time, more than once.
type held interface{ End(err error) error }

// holdUntilEnd calls End of h when the body of resp has been read to its end or an error, or is closed. It returns false where
// there is nothing left to read.
func (ex *exchange) holdUntilEnd(resp *http.Response, h held) bool {
	switch wrapped := resp.Body.(type) {
	case nil:
		return false
	case *whole:
		if wrapped.err != io.EOF {
			wrapped.err = h.End(wrapped.err)
		}
		return false
	case *body:
		return wrapped.hold(h)
	case *upgraded:
		return wrapped.hold(h)
	}
	if resp.Body == http.NoBody {
		return false
	}
	wrapper := ex.wrapper()
	wrapper.src = resp.Body
	resp.Body = wrapper
	if w, ok := wrapper.src.(io.Writer); ok {
		resp.Body = &upgraded{wrapper, w}
	}
	return wrapper.hold(h)
}

// wrapper is the exchange's own for the first response, since most exchanges have no other.
func (ex *exchange) wrapper() *body {
	if ex.first.src != nil {
		return new(body)
	}
	return &ex.first
}

// body is a response's body that gives back what the policies hold for it.
type body struct {
	src   io.ReadCloser
	mu    sync.Mutex
	over  bool
	held  []held
	space [3]held // for what the canonical order holds: a permit and two timeouts
}

// upgraded is the body of a response with status 101: a connection in both directions.
type upgraded struct {
	*body
	io.Writer
}

// hold reports whether the body has not ended yet.
func (b *body) hold(h held) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.over {
		return false
	}
	if b.held == nil {
		b.held = b.space[:0]
	}
	b.held = append(b.held, h)
	return true
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.src.Read(p)
	switch err {
	case nil:
	case io.EOF:
		_ = b.end(nil)
	default:
		err = b.end(err)
	}
	return n, err
}

func (b *body) Close() error {
	defer func() { _ = b.end(nil) }()
	return b.src.Close()
}

// end tells those who hold, the innermost policy first, and returns what the reader gets. It keeps what is held: a reader whom
// Close overtakes has to learn the reason for its error too.
func (b *body) end(err error) error {
	b.mu.Lock()
	b.over = true
	held := b.held
	b.mu.Unlock()
	for _, h := range held {
		err = h.End(err)
	}
	return err
}

// readAhead takes the body of a failed response off the connection, so that neither it nor a permit is kept during the delay
// before the next attempt. What is longer than aheadBytes or takes longer than aheadTime stays open: should the caller get this
// response in the end, it is complete in any case.
func readAhead(resp *http.Response) {
	if spent(resp) {
		return
	}
	a := &ahead{src: resp.Body, fetched: make(chan error, 1)}
	timer := time.NewTimer(aheadTime)
	defer timer.Stop()
	resp.Body = a
	for a.buf.Len() < aheadBytes {
		a.fetch()
		select {
		case err := <-a.fetched:
			if a.arrived(err); a.err != nil {
				_ = a.src.Close() // it has ended
				resp.Body = &whole{a}
				return
			}
		case <-timer.C:
			return
		}
	}
}

// ahead is a body whose beginning is in memory, with at most one read of the rest under way.
type ahead struct {
	src     io.ReadCloser
	buf     bytes.Buffer
	err     error // how src ended, after buf
	fetched chan error
	pending bool // a read into piece is under way
	piece   [4 << 10]byte
	n       int
}

// fetch reads the next piece, so that others need not wait for it.
func (a *ahead) fetch() {
	a.pending = true
	go func() {
		var err error
		a.n, err = a.src.Read(a.piece[:])
		a.fetched <- err
	}()
}

func (a *ahead) arrived(err error) {
	a.pending = false
	a.err = err
	a.buf.Write(a.piece[:a.n])
}

func (a *ahead) Read(p []byte) (int, error) {
	if a.buf.Len() == 0 && a.pending {
		a.arrived(<-a.fetched)
	}
	switch {
	case a.buf.Len() > 0:
		return a.buf.Read(p)
	case a.err != nil:
		return 0, a.err
	default:
		return a.src.Read(p)
	}
}

func (a *ahead) Close() error { return a.src.Close() }

// whole is a body that is in memory up to its end. It holds nothing.
type whole struct{ *ahead }

func (*whole) Close() error { return nil }

// spent reports whether the body of resp holds no connection: it is empty or in memory.
func spent(resp *http.Response) bool {
	_, inMemory := resp.Body.(*whole)
	return inMemory || resp.Body == nil || resp.Body == http.NoBody
}
