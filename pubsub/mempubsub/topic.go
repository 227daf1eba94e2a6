package mempubsub

import (
	"context"
	"fmt"
	"hash/maphash"
	"sync"

	"github.com/backstay-go/backstay/pubsub"
)

// topic has the groups of one topic. Its mutex guards them and their receivers.
type topic struct {
	name string
	cfg  *Config

	mu       sync.Mutex
	groups   map[string]*group
	retained []pubsub.Message // the latest cfg.Retain messages
	unread   []pubsub.Message // dead letters for the first group to come
	keep     bool             // keep unread ones
	freed    chan struct{}    // what publishers wait for; nil if none does
	counts   Stats
}

// publish queues m for every group, when all have room.
func (t *topic) publish(ctx context.Context, closed <-chan struct{}, m *pubsub.Message) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for !t.hasRoom() {
		if err := t.waitForRoom(ctx, closed); err != nil {
			return err
		}
	}
	select {
	case <-closed:
		return pubsub.ErrClosed
	default:
	}
	t.counts.Published++
	t.retain(m)
	switch {
	case len(t.groups) > 0:
		for _, g := range t.groups {
			g.enqueue(m)
		}
	case t.keep:
		t.unread = append(t.unread, *m)
	case t.cfg.Retain == 0:
		t.counts.Dropped++
	}
	return nil
}

func (t *topic) hasRoom() bool {
	for _, g := range t.groups {
		if g.pending >= t.cfg.MaxPending {
			return false
		}
	}
	return len(t.groups) > 0 || !t.keep || len(t.unread) < t.cfg.MaxPending
}

// waitForRoom waits without the mutex, which it gives up meanwhile.
func (t *topic) waitForRoom(ctx context.Context, closed <-chan struct{}) error {
	if t.freed == nil {
		t.freed = make(chan struct{})
	}
	freed := t.freed
	t.mu.Unlock()
	var err error
	select {
	case <-freed:
	case <-closed:
		err = pubsub.ErrClosed
	case <-ctx.Done():
		err = fmt.Errorf("mempubsub: topic %q: a group has %d unsettled messages: %w", t.name, t.cfg.MaxPending, ctx.Err())
	}
	t.mu.Lock()
	return err
}

// free wakes the publishers that wait.
func (t *topic) free() {
	if t.freed != nil {
		close(t.freed)
		t.freed = nil
	}
}

func (t *topic) retain(m *pubsub.Message) {
	if t.cfg.Retain == 0 {
		return
	}
	if len(t.retained) >= 2*t.cfg.Retain { // move down now and then, not every time
		t.retained = append([]pubsub.Message(nil), t.latest()...)
	}
	t.retained = append(t.retained, *m)
}

// latest is the retained messages, oldest first.
func (t *topic) latest() []pubsub.Message {
	return t.retained[max(0, len(t.retained)-t.cfg.Retain):]
}

// keepUnread makes the topic keep messages that no group takes, since they are dead letters.
func (t *topic) keepUnread() {
	t.mu.Lock()
	t.keep = true
	t.mu.Unlock()
}

// join adds a receiver to its group.
func (t *topic) join(r *receiver) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	g := t.groups[r.sub.Group]
	if g == nil {
		g = t.newGroup(r.sub)
	}
	if g.ordered != r.sub.Ordered {
		return errModes(r.sub)
	}
	r.group = g
	g.open++
	g.join(r)
	return nil
}

func (t *topic) newGroup(s pubsub.Subscription) *group {
	g := newGroup(t, s.Ordered)
	t.groups[s.Group] = g
	backlog := t.unread
	if latest := t.latest(); s.Start == "start" && len(latest) > len(backlog) {
		backlog = latest
	}
	for i := range backlog {
		g.enqueue(&backlog[i])
	}
	t.unread = nil
	return g
}

func (t *topic) remove(group string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	g := t.groups[group]
	if g == nil {
		return nil
	}
	if g.open > 0 {
		return fmt.Errorf("mempubsub: group %q of topic %q has %d open receivers", group, t.name, g.open)
	}
	delete(t.groups, group)
	t.free()
	return nil
}

func (t *topic) addTo(s *Stats) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.Published += t.counts.Published
	s.Dropped += t.counts.Dropped
	s.Redelivered += t.counts.Redelivered
	s.LeasesExpired += t.counts.LeasesExpired
	s.Groups += len(t.groups)
	s.Unread += len(t.unread)
	for _, g := range t.groups {
		s.Receivers += g.open
		s.Pending += g.pending
	}
}

var laneSeed = maphash.MakeSeed()

// laneOf spreads keys over lanes; messages without a key share one.
func laneOf(key string, lanes int) int {
	if lanes == 1 || key == "" {
		return 0
	}
	return int(maphash.String(laneSeed, key) % uint64(lanes))
}
