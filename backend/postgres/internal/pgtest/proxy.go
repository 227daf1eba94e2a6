package pgtest

import (
	"context"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
)

// Verdict is what a Proxy does with what a client has sent.
type Verdict int

const (
	// Pass sends it on.
	Pass Verdict = iota
	// Freeze sends nothing on from here, in either direction, and leaves both connections open, as a stopped client or a dead
	// network does.
	Freeze
	// CutAnswer sends it on, waits until the server has answered, and closes both connections with the answer undelivered.
	CutAnswer
)

// Proxy stands between clients and a server and hurts what passes. It ends with the test.
type Proxy struct {
	url    string
	target string
	mu     sync.Mutex
	judge  func(sent []byte) Verdict
	conns  []net.Conn
	ended  bool
	group  sync.WaitGroup
}

// NewProxy stands before the server of url.
func NewProxy(t testing.TB, url string) *Proxy {
	t.Helper()
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{
		target: net.JoinHostPort(cfg.Host, strconv.Itoa(int(cfg.Port))),
		url:    URL("127.0.0.1", uint16(l.Addr().(*net.TCPAddr).Port), cfg.User, cfg.Password, cfg.Database),
	}
	p.Judge(nil)
	p.group.Go(func() { p.accept(l) })
	t.Cleanup(func() {
		_ = l.Close()
		p.mu.Lock()
		p.ended = true // what is being connected just now is closed as well
		p.mu.Unlock()
		p.Cut()
		p.group.Wait()
	})
	return p
}

// URL is that of the same database through the proxy.
func (p *Proxy) URL() string { return p.url }

// Judge makes the proxy ask fn, one call at a time, about everything that clients send from now on; nil passes all.
func (p *Proxy) Judge(fn func(sent []byte) Verdict) {
	if fn == nil {
		fn = func([]byte) Verdict { return Pass }
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.judge = fn
}

// Once gives the verdict to the first packet that contains text, in whatever case, and passes the others.
func (p *Proxy) Once(text string, v Verdict) (met <-chan struct{}) {
	done := make(chan struct{})
	var once sync.Once
	p.Judge(func(sent []byte) Verdict {
		verdict := Pass
		if strings.Contains(strings.ToLower(string(sent)), strings.ToLower(text)) {
			once.Do(func() { verdict = v; close(done) })
		}
		return verdict
	})
	return done
}

// Cut closes all connections, frozen ones too.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.conns = nil
}

func (p *Proxy) accept(l net.Listener) {
	for {
		client, err := l.Accept()
		if err != nil {
			return
		}
		server, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", p.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, client, server)
		link := &link{p: p, client: client, server: server}
		if p.ended {
			link.close()
		}
		p.mu.Unlock()
		p.group.Go(link.toServer)
		p.group.Go(link.toClient)
	}
}

// link is one client's connection.
type link struct {
	p              *Proxy
	client, server net.Conn
	mu             sync.Mutex
	verdict        Verdict // the last that was not Pass
}

func (l *link) close() {
	_ = l.client.Close()
	_ = l.server.Close()
}

func (l *link) toServer() {
	buffer := make([]byte, 1<<16)
	for {
		n, err := l.client.Read(buffer)
		if err != nil {
			l.end()
			return
		}
		frozen := l.ask(buffer[:n])
		if frozen {
			continue // read and forgotten
		}
		if _, err := l.server.Write(buffer[:n]); err != nil {
			l.end()
			return
		}
	}
}

// ask takes the proxy's verdict, one at a time, and reports whether the link is frozen.
func (l *link) ask(sent []byte) bool {
	l.p.mu.Lock()
	defer l.p.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.verdict == Pass {
		l.verdict = l.p.judge(sent)
	}
	return l.verdict == Freeze
}

func (l *link) toClient() {
	buffer := make([]byte, 1<<16)
	for {
		n, err := l.server.Read(buffer)
		if err != nil {
			l.end()
			return
		}
		l.mu.Lock()
		verdict := l.verdict
		l.mu.Unlock()
		switch verdict {
		case CutAnswer:
			l.close()
			return
		case Freeze:
			continue
		default:
			if _, err := l.client.Write(buffer[:n]); err != nil {
				l.end()
				return
			}
		}
	}
}

// end closes both sides, unless the link is frozen: then the other side is not to notice.
func (l *link) end() {
	l.mu.Lock()
	frozen := l.verdict == Freeze
	l.mu.Unlock()
	if !frozen {
		l.close()
	}
}
