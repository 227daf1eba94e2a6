package rabbitpubsub_test

import (
	"io"
	"net"
	"net/url"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// proxy stands between clients and a server and does to their connections what networks do.
type proxy struct {
	listener net.Listener
	server   *url.URL
	wg       sync.WaitGroup

	mu      sync.Mutex
	conns   []net.Conn
	stalled chan struct{} // not nil while nothing passes; closed when things move again
	closed  bool
}

func newProxy(t *testing.T, server string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{listener: l}
	p.server, err = url.Parse(server)
	require.NoError(t, err)
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()
		p.resume()
		_ = l.Close()
		p.cut(false)
		p.wg.Wait()
	})
	return p
}

// url is that of the server, by way of the proxy.
func (p *proxy) url() string {
	u := *p.server
	u.Host = p.listener.Addr().String()
	return u.String()
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.server.Host)
		if err != nil {
			_ = client.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, client, server)
		closed := p.closed
		p.mu.Unlock()
		if closed {
			p.cut(false)
		}
		p.wg.Go(func() { p.pass(client, server) })
		p.wg.Go(func() { p.pass(server, client) })
	}
}

func (p *proxy) pass(from, to net.Conn) {
	defer func() { _ = from.Close(); _ = to.Close() }()
	_, _ = io.Copy(valve{to, p}, from)
}

// valve writes when nothing is stalled.
type valve struct {
	net.Conn
	p *proxy
}

// Write waits while the proxy is stalled. (Embedding hides the ReadFrom of the connection, which would not.)
func (v valve) Write(b []byte) (int, error) {
	v.p.mu.Lock()
	stalled := v.p.stalled
	v.p.mu.Unlock()
	if stalled != nil {
		<-stalled
	}
	return v.Conn.Write(b)
}

// stall lets connections stand and nothing through.
func (p *proxy) stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stalled == nil {
		p.stalled = make(chan struct{})
	}
}

func (p *proxy) resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stalled != nil {
		close(p.stalled)
		p.stalled = nil
	}
}

// cut closes all connections, with a reset instead of an orderly end if asked to. What is in its buffers is lost.
func (p *proxy) cut(reset bool) {
	p.mu.Lock()
	conns := p.conns
	p.conns = nil
	p.mu.Unlock()
	for _, c := range conns {
		if tcp, ok := c.(*net.TCPConn); ok && reset {
			_ = tcp.SetLinger(0)
		}
		_ = c.Close()
	}
}
