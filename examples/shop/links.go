package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// A link is the way that connections to somebody take, on which they can be cut, slowed and stalled.
type link struct {
	name  string
	proxy *toxiproxy.Proxy
	mu    sync.Mutex // one ill at a time
}

// A cabling is all links. Not safe for concurrent use, but its links are.
type cabling struct {
	api   *toxiproxy.ApiServer
	links map[string]*link
	names []string // in the order in which they were laid
}

func newCabling() *cabling {
	return &cabling{api: toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop()), links: map[string]*link{}}
}

// lay makes a link to host:port and returns where it begins.
func (c *cabling) lay(name, to string) (from string, err error) {
	l := &link{name: name}
	for range 100 { // somebody else may take the port first
		addr, err := steadyAddress()
		if err != nil {
			return "", err
		}
		l.proxy = toxiproxy.NewProxy(c.api, name, addr, to)
		if err = l.proxy.Start(); err == nil {
			c.links[name] = l
			c.names = append(c.names, name)
			return addr, nil
		}
	}
	return "", fmt.Errorf("%s: no port is free", name)
}

func (c *cabling) close() error {
	for _, name := range c.names {
		c.links[name].proxy.Stop()
	}
	return nil
}

var given sync.Map // addresses that steadyAddress has named

// steadyAddress is free, and below the ports that the system gives to connections, so that none takes it while its owner is
// down for a moment.
func steadyAddress() (string, error) {
	var config net.ListenConfig
	for range 1000 {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(15_000+rand.IntN(15_000)))
		if _, taken := given.LoadOrStore(addr, true); taken {
			continue
		}
		l, err := config.Listen(context.Background(), "tcp", addr)
		if err != nil {
			continue
		}
		return addr, l.Close()
	}
	return "", fmt.Errorf("no port from 15000 to 29999 is free")
}

// suffer has the link do it until the time is over or ctx is done.
func (l *link) suffer(ctx context.Context, kind ill, last time.Duration) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	begin, end := l.cut, l.join
	if kind != cut {
		begin, end = func() error { return l.poison(kind) }, l.cure
	}
	if err := begin(); err != nil {
		return fmt.Errorf("%s: %w", l.name, err)
	}
	wait := time.NewTimer(last)
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-ctx.Done():
	}
	if err := end(); err != nil {
		return fmt.Errorf("%s: %w", l.name, err)
	}
	return nil
}

func (l *link) cut() error {
	l.proxy.Stop()
	return nil
}

// join opens the link again. That the port is in use can only be for a moment.
func (l *link) join() (err error) {
	for range 200 {
		if err = l.proxy.Start(); err == nil {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return err
}

var ways = []string{"upstream", "downstream"}

func (l *link) poison(kind ill) error {
	toxic := `"type":"latency","attributes":{"latency":60,"jitter":50}`
	if kind == stalled {
		toxic = `"type":"timeout","attributes":{"timeout":0}`
	}
	for _, way := range ways {
		if _, err := l.proxy.Toxics.AddToxicJson(strings.NewReader(fmt.Sprintf(`{"name":%q,"stream":%q,%s}`, way, way, toxic))); err != nil {
			return err
		}
	}
	return nil
}

func (l *link) cure() error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, way := range ways {
		if err := l.proxy.Toxics.RemoveToxic(ctx, way); err != nil {
			return err
		}
	}
	return nil
}
