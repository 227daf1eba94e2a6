package mempubsub

import (
	"context"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"github.com/backstay-go/backstay/pubsub"
)

// topic has the groups of one topic. Its mutex guards them and their receivers.
type topic struct {
	name   string
	broker *broker

	// What every message needs comes first, in as few lines of the processor's cache as can be: at low load each of them
	// is fetched anew for each message.
	mu     sync.Mutex
	keep   bool        // keep unread messages
	roomy  bool        // publishers are to be woken
	dedup  bool        // Config.DedupWindow is set
	retain int         // Config.Retain
	all    []*group    // those of groups, for speed
	woken  []*receiver // to be woken
	counts Stats

	groups   map[string]*group
	retained fifo[*pubsub.Message] // the latest ones, retain of them
	unread   []*pubsub.Message     // dead letters for the first group to come
	recent   recent                // used if dedup is set
	freed    chan struct{}         // what publishers wait for; nil if none does
}

// together is how many messages of a batch are kept in one piece of memory, until all of them are settled.
const together = 4

func newTopic(b *broker, name string) *topic {
	return &topic{
		name: name, broker: b, groups: make(map[string]*group),
		dedup: b.cfg.DedupWindow > 0, retain: b.cfg.Retain,
		recent: recent{window: b.cfg.DedupWindow, limit: maxRecent},
	}
}

// publish queues messages for every group, as many as there is room for, and says how many that were. The groups look
// at them once all are there.
//
// The messages stay where they are, for all groups to share, if there is one: a slice of many would be kept by the last.
func (t *topic) publish(ctx context.Context, d *Driver, msgs []pubsub.Message, many bool) (int, error) {
	var own []pubsub.Message
	t.mu.Lock()
	defer t.unlock()
	if d.closed.Load() {
		return 0, pubsub.ErrClosed
	}
	for i := range msgs {
		m := &msgs[i]
		if many {
			if i%together == 0 {
				own = slices.Clone(msgs[i:min(i+together, len(msgs))])
			}
			m = &own[i%together]
		}
		if err := t.admit(ctx, d.done, m); err != nil {
			return i, err
		}
	}
	return len(msgs), nil
}

// admit queues m when every group has room, unless it is a duplicate.
func (t *topic) admit(ctx context.Context, closed <-chan struct{}, m *pubsub.Message) error {
	var id dedupID
	if t.dedup {
		id = hashID(m)
	}
	for {
		if t.dedup && t.recent.has(id, t.broker.now()) {
			t.counts.Duplicates++
			return nil
		}
		full := t.full()
		switch {
		case full == nil:
			if t.dedup {
				t.recent.add(id, t.broker.now())
			}
			t.accept(m)
			return nil
		case t.broker.cfg.WhenFull == rejects:
			return full
		}
		if err := t.waitForRoom(ctx, closed, full); err != nil {
			return err
		}
	}
}

// full says what has no room for another message, nil if all have.
func (t *topic) full() *Error {
	for _, g := range t.all {
		if g.pending >= g.limit {
			return g.full
		}
	}
	if len(t.all) == 0 && t.keep && len(t.unread) >= t.broker.cfg.MaxPending {
		return &Error{Topic: t.name, Limit: t.broker.cfg.MaxPending, what: "dead letters that nobody has read (MaxPending)"}
	}
	if t.dedup && t.recent.full() {
		return &Error{Topic: t.name, Limit: t.recent.limit, what: fmt.Sprintf("IDs to remember (DedupWindow %v)", t.recent.window)}
	}
	return nil
}

// waitForRoom waits without the mutex, which it gives up meanwhile.
func (t *topic) waitForRoom(ctx context.Context, closed <-chan struct{}, full *Error) error {
	if t.freed == nil {
		t.freed = make(chan struct{})
	}
	freed := t.freed
	var forgotten <-chan time.Time
	if t.dedup && t.recent.full() {
		timer := time.NewTimer(t.recent.order.at(0).until - t.broker.now())
		defer timer.Stop()
		forgotten = timer.C
	}
	t.unlock()
	var err error
	select {
	case <-freed:
	case <-forgotten:
	case <-closed:
		err = pubsub.ErrClosed
	case <-ctx.Done():
		err = fmt.Errorf("%w: %w", full, ctx.Err())
	}
	t.mu.Lock()
	return err
}

// unlock gives up the mutex and then wakes whom the changes concern. Woken before, they would run into it.
func (t *topic) unlock() {
	for _, g := range t.all {
		g.offer()
	}
	var freed chan struct{}
	if t.roomy {
		freed, t.freed, t.roomy = t.freed, nil, false
	}
	woken := len(t.woken)
	if woken > 1 {
		t.unlockAndWake()
	} else {
		var r *receiver
		if woken == 1 {
			r, t.woken[0] = t.woken[0], nil
			t.woken = t.woken[:0]
		}
		t.mu.Unlock()
		if r != nil {
			r.wakeUp()
		}
	}
	if freed != nil {
		close(freed)
	}
}

// unlockAndWake is the end of unlock for several receivers.
func (t *topic) unlockAndWake() {
	var woken [8]*receiver
	n := copy(woken[:], t.woken)
	for _, r := range t.woken[n:] {
		r.wakeUp()
	}
	clear(t.woken)
	t.woken = t.woken[:0]
	t.mu.Unlock()
	for _, r := range woken[:n] {
		r.wakeUp()
	}
}

// accept gives m to those who want it.
func (t *topic) accept(m *pubsub.Message) {
	t.counts.Published++
	unread := t.keep && len(t.all) == 0
	if len(t.all) == 0 && !unread && t.retain == 0 {
		t.counts.Dropped++
		return
	}
	for _, g := range t.all {
		g.add(m)
	}
	if unread {
		t.unread = append(t.unread, m)
	}
	if t.retain > 0 {
		t.retained.push(m)
		if t.retained.n > t.retain {
			t.retained.pop()
		}
	}
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
	defer t.unlock()
	g := t.groups[r.sub.Group]
	if g == nil {
		g = t.newGroup(r.sub)
	}
	if err := g.fits(r.sub); err != nil {
		return err
	}
	r.group = g
	g.open++
	g.join(r)
	return nil
}

// newGroup begins a group with what is unread, which no group has seen, and with that part of the retained messages
// before it which the subscription asks for.
func (t *topic) newGroup(s pubsub.Subscription) *group {
	g := newGroup(t, s)
	t.groups[s.Group] = g
	t.all = append(t.all, g)
	from, timed := s.StartTime()
	for i := range t.retained.n - len(t.unread) {
		if m := t.retained.at(i); s.Start == "start" || timed && !m.Time.Before(from) {
			g.add(m)
		}
	}
	for _, m := range t.unread {
		g.add(m)
	}
	t.unread = nil
	return g
}

func (t *topic) remove(group string) error {
	t.mu.Lock()
	defer t.unlock()
	g := t.groups[group]
	if g == nil {
		return nil
	}
	if g.open > 0 {
		return fmt.Errorf("mempubsub: group %q of topic %q has %d open receivers", group, t.name, g.open)
	}
	t.drop(g)
	return nil
}

// open is the number of open receivers of the group.
func (t *topic) open(group string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if g := t.groups[group]; g != nil {
		return g.open
	}
	return 0
}

// drop forgets a group.
func (t *topic) drop(g *group) {
	delete(t.groups, g.name)
	t.all = slices.DeleteFunc(t.all, func(other *group) bool { return other == g })
	g.delayed.stop()
	g.scheduled.stop()
	t.roomy = true
}

func (t *topic) addTo(s *Stats) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s.Published += t.counts.Published
	s.Dropped += t.counts.Dropped
	s.Duplicates += t.counts.Duplicates
	s.Redelivered += t.counts.Redelivered
	s.LeasesExpired += t.counts.LeasesExpired
	s.Groups += len(t.groups)
	s.Unread += len(t.unread)
	for _, g := range t.all {
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
