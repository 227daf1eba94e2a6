// Package watch listens to several servers at once, some of which may be away.
package watch

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// Every is how often the list of servers is read again, lost ones are tried again, and a silent connection is asked
	// whether it still lives.
	Every = time.Second
	// Patience is how long a connection may take to answer that.
	Patience = 2 * time.Second
)

// ErrUnsupported is what a Listener returns to end Run: there is no point in trying again.
var ErrUnsupported = errors.New("notices are not supported")

// Notices is what a Listener calls. Calls from several listeners are made one at a time.
type Notices struct {
	mu      sync.Mutex
	ended   bool
	changed func(key string)
	lost    func()
}

// Changed tells of changed keys.
func (n *Notices) Changed(keys ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, key := range keys {
		if !n.ended {
			n.changed(key)
		}
	}
}

// Lost tells that a listener begins to listen, or has missed something.
func (n *Notices) Lost() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.ended {
		n.lost()
	}
}

// end returns once no call is being made and none will be made: clients may deliver for a while after they are closed.
func (n *Notices) end() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ended = true
}

// Listener listens to one server until ctx ends or the connection is lost.
type Listener func(ctx context.Context, n *Notices) error

// Run keeps a Listener running for each server that list names, until ctx ends; then it waits for them. changed and
// lost are called one at a time.
func Run(ctx context.Context, list func(context.Context) map[string]Listener, changed func(key string), lost func()) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s := servers{notices: &Notices{changed: changed, lost: lost}, fail: cancel, running: map[string]context.CancelFunc{}}
	defer s.notices.end()
	defer s.group.Wait()
	tick := time.NewTicker(Every)
	defer tick.Stop()
	for {
		s.follow(ctx, list(ctx))
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// servers are those that are listened to.
type servers struct {
	notices *Notices
	fail    func(error)
	group   sync.WaitGroup
	mu      sync.Mutex
	running map[string]context.CancelFunc
}

func (s *servers) follow(ctx context.Context, listed map[string]Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for addr, stop := range s.running {
		if listed[addr] == nil {
			stop()
		}
	}
	for addr, listen := range listed {
		if s.running[addr] != nil {
			continue
		}
		listening, stop := context.WithCancel(ctx)
		s.running[addr] = stop
		s.group.Go(func() {
			defer s.gone(addr)
			if err := listen(listening, s.notices); errors.Is(err, ErrUnsupported) {
				s.fail(err)
			}
		})
	}
}

func (s *servers) gone(addr string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running[addr]()
	delete(s.running, addr)
}
