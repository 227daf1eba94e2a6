package redistest

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Proxy stands between clients and a server and can harm the connections through it.
type Proxy struct {
	// Addr is where clients connect.
	Addr     string
	target   string
	listener net.Listener
	group    sync.WaitGroup
	cut      atomic.Bool
	mu       sync.Mutex
	down     bool
	slow     chan struct{} // not nil: until it is closed, what the server says comes late
	delay    time.Duration
	frozen   chan struct{} // closed: the connections made before are silent
	open     map[net.Conn]struct{}
	ended    bool
}

// NewProxy runs a proxy in front of the server at target until the test ends.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Addr: listener.Addr().String(), target: target, listener: listener,
		frozen: make(chan struct{}), open: map[net.Conn]struct{}{}}
	p.group.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

// Freeze makes all present connections silent: they stay open and nothing passes. Later connections work.
func (p *Proxy) Freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.frozen)
	p.frozen = make(chan struct{})
}

// CutReply loses the next thing that the server says on any connection, and closes that connection.
func (p *Proxy) CutReply() { p.cut.Store(true) }

// Cut closes all connections and those that come, until Mend.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = true
	p.closeAll()
}

// Slow delays everything that the server says by d, until Mend.
func (p *Proxy) Slow(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.slow, p.delay = make(chan struct{}), d
}

// Mend ends Cut and Slow.
func (p *Proxy) Mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = false
	if p.slow != nil {
		close(p.slow)
		p.slow = nil
	}
}

// dawdle waits while the proxy is slow.
func (p *Proxy) dawdle() {
	p.mu.Lock()
	slow, delay := p.slow, p.delay
	p.mu.Unlock()
	if slow == nil {
		return
	}
	late := time.NewTimer(delay)
	defer late.Stop()
	select {
	case <-slow:
	case <-late.C:
	}
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.target) //nolint:noctx // loopback, and it ends with the test
		if err != nil {
			_ = client.Close()
			continue
		}
		p.mu.Lock()
		frozen := p.frozen
		p.open[client], p.open[server] = struct{}{}, struct{}{}
		if p.ended || p.down {
			_, _ = client.Close(), server.Close()
		}
		p.mu.Unlock()
		p.group.Go(func() { p.pass(client, server, frozen, func() bool { return false }) })
		p.group.Go(func() {
			p.pass(server, client, frozen, func() bool {
				p.dawdle()
				return p.cut.CompareAndSwap(true, false)
			})
		})
	}
}

// pass copies from one side to the other. A frozen pair swallows what comes until both are closed.
func (p *Proxy) pass(from, to net.Conn, frozen chan struct{}, cut func() bool) {
	defer func() { _, _ = from.Close(), to.Close() }()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil || cut() {
			return
		}
		select {
		case <-frozen:
			continue
		default:
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (p *Proxy) close() {
	_ = p.listener.Close()
	p.Mend()
	p.mu.Lock()
	p.ended = true
	p.closeAll()
	p.mu.Unlock()
	p.group.Wait()
}

// closeAll closes the connections. The lock is held.
func (p *Proxy) closeAll() {
	for conn := range p.open {
		_ = conn.Close()
	}
	clear(p.open)
}
