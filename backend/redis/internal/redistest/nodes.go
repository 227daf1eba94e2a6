package redistest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/backstay-go/backstay/cache"
)

// Fault is what happens to a server between Inject and Heal, and how long it lasts.
type Fault struct {
	Inject, Heal func()
	Lasts        time.Duration
	// Passes is true when clients may get over the fault before Heal: on a slow machine a call then comes too late to fail.
	Passes bool
}

const (
	storeTimeout = 200 * time.Millisecond
	localTTL     = 300 * time.Millisecond
	longest      = time.Second // a call may take, and what a busy machine adds
	fewest       = 50          // reads that each node must have made during the fault
)

// RequireSurviving checks what two nodes, each with a store of its own from open, promise while the server fails and when
// it is back. Before and after, the server has to be well.
func RequireSurviving(t *testing.T, fault Fault, arrange func(store) cache.Option, open func() store) {
	t.Helper()
	src, pulse := NewSource("old"), NewPulse(t)
	var nodes []*observed
	for i := range 2 {
		cfg := cache.Config{Name: fmt.Sprint("node ", i), TTL: time.Hour, LocalTTL: localTTL, StoreTimeout: storeTimeout}
		n := &observed{Cache: cache.New(src.Load, cfg, arrange(open())), name: cfg.Name, own: "own of " + cfg.Name, bans: map[string]time.Time{}, pulse: pulse}
		t.Cleanup(func() { n.closeQuickly(t) })
		nodes = append(nodes, n)
	}
	for _, n := range nodes {
		n.requireWell(t, nodes)
	}
	stop := readers(t, nodes)
	defer stop()

	fault.Inject()
	end := time.NewTimer(fault.Lasts)
	defer end.Stop()
	before := []uint64{nodes[0].reads(), nodes[1].reads()}
	src.Write("drift", "new") // and nobody tells the nodes
	for _, n := range nodes {
		n.ban("drift", time.Now().Add(localTTL+longest/2))
		src.Write(n.own, "new")
		n.deleteInDoubt(t, fault.Passes)
	}
	for _, n := range nodes {
		Eventually(t, n.name+" has noticed the fault", func() bool { st := n.Stats(); return st.StoreFailures > 0 && st.StoreAway })
	}
	<-end.C
	for i, n := range nodes {
		Eventually(t, n.name+" goes on reading", func() bool { return n.reads()-before[i] >= fewest })
		n.lift("drift") // once the store is back, its entry may be read until its TTL ends
	}
	fault.Heal()

	for _, n := range nodes {
		Eventually(t, n.name+" has made its deletes", func() bool {
			st := n.Stats()
			return !st.StoreAway && st.PendingDeletes == 0
		})
	}
	for i, n := range nodes {
		n.ban(nodes[1-i].own, time.Now().Add(localTTL+longest/2))
	}
	for _, n := range nodes {
		n.requireWell(t, nodes)
	}
	settled := time.NewTimer(localTTL + longest)
	defer settled.Stop()
	<-settled.C
	stop()
	for _, n := range nodes {
		n.report(t)
	}
}

// observed is a node whose reads are judged.
type observed struct {
	*cache.Cache[string, string]
	name, own string
	mu        sync.Mutex
	bans      map[string]time.Time // from when on a key must not be read as "old"
	faults    []lateness
	pulse     *Pulse
}

// lateness is how much later than it should something was, which a busy machine may explain.
type lateness struct {
	what string
	by   time.Duration
}

// note takes down what was too late. The lock is held.
func (n *observed) note(what string, by time.Duration) {
	if by > 0 && len(n.faults) < 1000 {
		n.faults = append(n.faults, lateness{what, by})
	}
}

// report fails the test for what the machine does not explain.
func (n *observed) report(t testing.TB) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	allowed := n.pulse.Bound(0)
	for _, f := range n.faults {
		if f.by > allowed {
			t.Errorf("%s: %s, %v too late; the machine explains %v", n.name, f.what, f.by, allowed)
		}
	}
	n.faults = nil
}

func (n *observed) ban(key string, from time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.bans[key] = from
}

func (n *observed) lift(key string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.bans, key)
}

func (n *observed) reads() uint64 {
	st := n.Stats()
	return st.Hits + st.Misses
}

// read gets a key and notes what is wrong with the answer.
func (n *observed) read(key string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	start := time.Now()
	v, err := n.Get(ctx, key)
	took := time.Since(start)
	n.mu.Lock()
	defer n.mu.Unlock()
	from, banned := n.bans[key]
	if err != nil {
		n.note(fmt.Sprintf("%q: %v", key, err), patience)
	}
	n.note(fmt.Sprintf("the answer for %q", key), took-longest)
	if banned && v == "old" {
		n.note(fmt.Sprintf("%q, read as before its change", key), start.Sub(from))
	}
}

// deleteInDoubt deletes the node's own key, which from then on it must not read as it was. The delete fails unless it may work.
func (n *observed) deleteInDoubt(t testing.TB, mayWork bool) {
	t.Helper()
	for range 3 { // before and after the store is known to be away
		start := time.Now()
		err := n.Delete(context.Background(), n.own)
		if !errors.Is(err, cache.ErrStore) && (err != nil || !mayWork) {
			t.Errorf("%s: Delete during the fault: %v", n.name, err)
		}
		n.mu.Lock()
		n.note("Delete during the fault", time.Since(start)-longest)
		n.mu.Unlock()
	}
	n.ban(n.own, time.Now())
}

// requireWell checks that all nodes get what this one sets.
func (n *observed) requireWell(t testing.TB, nodes []*observed) {
	t.Helper()
	key, want := "from "+n.name, fmt.Sprint(time.Now().UnixNano())
	Eventually(t, n.name+" sets", func() bool { return n.Set(context.Background(), key, want) == nil })
	for _, other := range nodes {
		Eventually(t, other.name+" gets what "+n.name+" has set", func() bool {
			v, err := other.Get(context.Background(), key)
			return err == nil && v == want
		})
	}
}

func (n *observed) closeQuickly(t testing.TB) {
	t.Helper()
	start := time.Now()
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	n.mu.Lock()
	n.note("Close", time.Since(start)-2*longest)
	n.mu.Unlock()
	n.report(t)
}

// readers read keys that are held and keys that are missing, at each node, until they are stopped.
func readers(t testing.TB, nodes []*observed) (stop func()) {
	t.Helper()
	keys := []string{"hot", "drift", nodes[0].own, nodes[1].own}
	for _, n := range nodes {
		for _, key := range keys {
			n.read(key)
		}
	}
	ended := make(chan struct{})
	var group sync.WaitGroup
	for _, n := range nodes {
		for worker := range 3 {
			group.Go(func() {
				tick := time.NewTicker(5 * time.Millisecond)
				defer tick.Stop()
				for i := 0; ; i++ {
					for _, key := range keys {
						n.read(key)
					}
					n.read(fmt.Sprintf("cold %s %d %d", n.name, worker, i))
					select {
					case <-tick.C:
					case <-ended:
						return
					}
				}
			})
		}
	}
	return sync.OnceFunc(func() {
		close(ended)
		group.Wait()
	})
}
