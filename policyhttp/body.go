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

// holdUntilEnd calls release when the body of resp has been read to its end or an error, or is closed. It returns false, and
// does nothing, where there is nothing left to read.
func holdUntilEnd(resp *http.Response, release func()) bool {
	if resp == nil || spent(resp) {
		return false
	}
	var b *body
	switch wrapped := resp.Body.(type) {
	case *body:
		b = wrapped
	case *upgraded:
		b = wrapped.body
	default:
		b = &body{src: resp.Body}
		resp.Body = b
		if w, ok := b.src.(io.Writer); ok {
			resp.Body = &upgraded{b, w}
		}
	}
	return b.hold(release)
}

// body is a response's body that gives back what the policies hold for it.
type body struct {
	src   io.ReadCloser
	mu    sync.Mutex
	ended bool
	held  []func()
}

// upgraded is the body of a response with status 101: a connection in both directions.
type upgraded struct {
	*body
	io.Writer
}

func (b *body) hold(release func()) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.ended {
		b.held = append(b.held, release)
	}
	return !b.ended
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.src.Read(p)
	if err != nil {
		b.end()
	}
	return n, err
}

func (b *body) Close() error {
	defer b.end()
	return b.src.Close()
}

func (b *body) end() {
	b.mu.Lock()
	held := b.held
	b.ended, b.held = true, nil
	b.mu.Unlock()
	for _, release := range held {
		release()
	}
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
