package rabbitpubsub

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxBacklog is how many bytes may wait to be written before a Publish waits.
	maxBacklog = 4 << 20
	// lastWords bounds the writing of what is left when a connection is closed.
	lastWords = 250 * time.Millisecond
)

// conn writes on a goroutine of its own what has gathered meanwhile. The AMQP client writes each message with a call of
// its own, under locks that it also needs to notice the end of the connection: here such a call never blocks, whatever
// the broker does, and many messages share one write to the network.
type conn struct {
	net.Conn
	wake   chan struct{} // capacity 1
	closed chan struct{}
	close  func() error
	wg     sync.WaitGroup
	base   time.Time
	wrote  atomic.Int64 // when the last write ended, since base

	writing sync.Mutex // held during a write to the network

	mu      sync.Mutex
	out     []byte
	spare   []byte
	err     error
	drained chan struct{} // closed when out is taken, if somebody waits for it
}

func newConn(under net.Conn) *conn {
	c := &conn{Conn: under, wake: make(chan struct{}, 1), closed: make(chan struct{}), base: time.Now()}
	c.close = sync.OnceValue(c.doClose)
	c.wg.Go(c.run)
	return c
}

// Write keeps a copy of p for the goroutine.
func (c *conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, c.err
	}
	c.out = append(c.out, p...)
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (c *conn) run() {
	for {
		select {
		case <-c.closed:
			return
		case <-c.wake:
			c.flush()
		}
	}
}

// flush writes until nothing is left.
func (c *conn) flush() {
	c.writing.Lock()
	defer c.writing.Unlock()
	for {
		out := c.take()
		if len(out) == 0 {
			return
		}
		_, err := c.Conn.Write(out)
		c.wrote.Store(int64(time.Since(c.base)))
		c.mu.Lock()
		if cap(out) <= maxBacklog {
			c.spare = out[:0]
		}
		if err != nil && c.err == nil {
			c.err = err
		}
		c.mu.Unlock()
		if err != nil {
			_ = c.Conn.Close() // the client's reader notices
			return
		}
	}
}

func (c *conn) take() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.out
	c.out, c.spare = c.spare[:0], nil
	if c.drained != nil {
		close(c.drained)
		c.drained = nil
	}
	return out
}

// full returns nil when there is room to write, otherwise a channel that is closed when there may be.
func (c *conn) full() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.out) < maxBacklog || c.err != nil {
		return nil
	}
	if c.drained == nil {
		c.drained = make(chan struct{})
	}
	return c.drained
}

// silence is how long nothing has left.
func (c *conn) silence() time.Duration { return time.Since(c.base) - time.Duration(c.wrote.Load()) }

// Close writes what is left, briefly, and closes the connection.
func (c *conn) Close() error { return c.close() }

func (c *conn) doClose() error {
	_ = c.SetWriteDeadline(time.Now().Add(lastWords))
	c.flush()
	c.mu.Lock()
	if c.err == nil {
		c.err = net.ErrClosed
	}
	if c.drained != nil {
		close(c.drained)
		c.drained = nil
	}
	c.mu.Unlock()
	close(c.closed)
	err := c.Conn.Close()
	c.wg.Wait()
	return err
}
