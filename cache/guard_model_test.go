package cache

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// guardStep is one thing that happens in a run of the model.
type guardStep struct {
	After  time.Duration // since the step before
	Op     string        // get, set, delete, load, or fault
	Node   int
	Key    string
	Budget time.Duration // of the caller's context; zero is endless
	Cancel bool          // the context ends by cancellation when the budget is used up
	Hold   time.Duration // how long a load takes
	Renew  bool          // the load is of a key that has an entry
	Fault  fault
	Only   string // the op that the fault is confined to
}

func guardSteps(t *rapid.T) []guardStep {
	ms := func(t *rapid.T, label string, of ...int) time.Duration {
		return time.Duration(rapid.SampledFrom(of).Draw(t, label)) * time.Millisecond
	}
	step := rapid.Custom(func(t *rapid.T) guardStep {
		s := guardStep{
			After: ms(t, "after", 0, 0, 1, 5, 30, 300, 1500),
			Op:    rapid.SampledFrom([]string{"get", "get", "set", "set", "delete", "delete", "load", "load", "fault"}).Draw(t, "op"),
		}
		if s.Op == "fault" {
			s.Only = rapid.SampledFrom([]string{"", "", "get", "set", "delete", "fill", "ping"}).Draw(t, "only")
			s.Fault.latency = ms(t, "latency", 0, 1, 20, 200)
			switch rapid.IntRange(0, 3).Draw(t, "fault") {
			case 1:
				s.Fault.err = errDown
			case 2, 3:
				s.Fault.hang = true
			}
			s.Fault.done = rapid.Bool().Draw(t, "done")
			if !s.Fault.done && (s.Fault.hang || s.Fault.err != nil) {
				s.Fault.late = ms(t, "late", 0, 1, 100, 1000, 4000)
			}
			return s
		}
		s.Node = rapid.IntRange(0, 1).Draw(t, "node")
		s.Key = rapid.SampledFrom([]string{"a", "b"}).Draw(t, "key")
		s.Budget = ms(t, "budget", 0, 0, 3, 100, 400)
		s.Cancel = rapid.Bool().Draw(t, "cancel")
		s.Hold = ms(t, "hold", 0, 10, 400, 3000)
		s.Renew = rapid.Bool().Draw(t, "renew")
		return s
	})
	return rapid.SliceOfN(step, 30, 150).Draw(t, "steps")
}

// guardWrite is what the oracle knows of a Set, a Delete or a Fill. Its instants number what happened, in order.
type guardWrite struct {
	op, key    string
	node       int
	from       int // when a Delete began, a Set ended, or the load of a Fill began: what began later wins over its value
	began      int
	ended      int // zero while it has not
	successful bool
}

// guardModel runs steps on two guards over one store. Values are numbers of writes.
type guardModel struct {
	store  *faultyStore
	guards [2]*guard[string, int]

	mu     sync.Mutex
	now    int
	writes []*guardWrite
	faults []string // what was wrong
}

func (m *guardModel) tick() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now++
	return m.now
}

func (m *guardModel) wrong(format string, args ...any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.faults = append(m.faults, fmt.Sprintf(format, args...))
}

// begin notes a write, and returns it with the value that it writes.
func (m *guardModel) begin(op string, s guardStep, from int) (*guardWrite, int) {
	began := m.tick()
	m.mu.Lock()
	defer m.mu.Unlock()
	w := &guardWrite{op: op, key: s.Key, node: s.Node, began: began, from: from}
	m.writes = append(m.writes, w)
	return w, len(m.writes) - 1
}

func (m *guardModel) end(w *guardWrite, successful bool) {
	ended := m.tick()
	m.mu.Lock()
	defer m.mu.Unlock()
	w.ended, w.successful = ended, successful
	if w.op == "set" {
		w.from = ended
	}
}

// bounded makes one call of a guard and checks how long it takes.
func (m *guardModel) bounded(op string, call func() error) error {
	began := time.Now()
	err := call()
	if took := time.Since(began); took > guardTimeout {
		m.wrong("%s took %v", op, took)
	}
	return err
}

// staler returns a Set or a Delete that began after w and had ended before the instant, if its effect must be seen by
// the node then: it has succeeded, or the node knows that it is in doubt. A node of -1 must see all.
func (m *guardModel) staler(w *guardWrite, before, node int) *guardWrite {
	for _, d := range m.writes {
		seen := d.successful || d.node == node || node < 0
		if d.op != "fill" && d.key == w.key && seen && d.began > w.from && d.ended > 0 && d.ended < before {
			return d
		}
	}
	return nil
}

func (m *guardModel) get(ctx context.Context, s guardStep) {
	began := m.tick()
	var e Entry[int]
	var ok bool
	err := m.bounded("get", func() (err error) {
		e, ok, err = m.guards[s.Node].Get(ctx, s.Key)
		return err
	})
	if err != nil || !ok {
		return
	}
	m.mu.Lock()
	w := m.writes[e.Value]
	d := m.staler(w, began, s.Node)
	known := w.ended > 0 && w.successful // one in doubt may arrive late
	m.mu.Unlock()
	if known && d != nil {
		m.wrong("node %d read %+v after %+v", s.Node, *w, *d)
	}
}

func (m *guardModel) load(ctx context.Context, s guardStep) {
	var grant Grant[int]
	var old Entry[int]
	if s.Renew {
		old, _, _ = m.guards[s.Node].Get(ctx, s.Key)
	}
	err := m.bounded("lease", func() (err error) {
		grant, err = m.guards[s.Node].Lease(ctx, s.Key, old.Version)
		return err
	})
	if err != nil || grant.Lease == nil {
		return
	}
	began := m.tick()
	time.Sleep(s.Hold)
	w, value := m.begin("fill", s, began)
	filled := false
	err = m.bounded("fill", func() (err error) {
		filled, err = grant.Lease.Fill(ctx, Entry[int]{Value: value})
		return err
	})
	m.end(w, filled && err == nil)
}

func (m *guardModel) step(s guardStep) {
	ctx, cancel := context.Background(), context.CancelFunc(func() {})
	if s.Budget > 0 && s.Cancel {
		ctx, cancel = context.WithCancel(ctx)
		time.AfterFunc(s.Budget, cancel)
	} else if s.Budget > 0 {
		ctx, cancel = context.WithTimeout(ctx, s.Budget)
	}
	defer cancel()
	g := m.guards[s.Node]
	switch s.Op {
	case "get":
		m.get(ctx, s)
	case "load":
		m.load(ctx, s)
	case "set":
		w, value := m.begin("set", s, 0)
		err := m.bounded("set", func() error { return g.Set(ctx, s.Key, Entry[int]{Value: value}) })
		m.end(w, err == nil)
	case "delete":
		w, _ := m.begin("delete", s, 0)
		err := m.bounded("delete", func() error { return g.Delete(ctx, s.Key) })
		m.end(w, err == nil)
	}
}

// run returns what went wrong.
func (m *guardModel) run(steps []guardStep) []string {
	var calls sync.WaitGroup
	for _, s := range steps {
		time.Sleep(s.After)
		if s.Op == "fault" {
			m.store.breaksFor(func(op, _ string) fault {
				if s.Only != "" && s.Only != op {
					return fault{}
				}
				if op == "get" || op == "ping" { // a late read has no effect
					return fault{err: s.Fault.err, hang: s.Fault.hang, latency: s.Fault.latency}
				}
				return s.Fault
			})
			continue
		}
		calls.Go(func() { m.step(s) })
	}
	calls.Wait()
	m.store.breaks()
	time.Sleep(2*lateness + maxPause)
	m.store.late.Wait()
	m.settled()
	return m.faults
}

// settled checks what is left once all is quiet.
func (m *guardModel) settled() {
	for node, g := range m.guards {
		if s := g.stats(); s.Away || s.Pending > 0 || !g.clear.Load() {
			m.wrong("guard %d is not at rest: %+v", node, s)
		}
	}
	for _, key := range []string{"a", "b"} {
		if value, ok := m.store.held(key); ok {
			if d := m.staler(m.writes[value], m.tick(), -1); d != nil {
				m.wrong("%s holds %+v in spite of %+v", key, *m.writes[value], *d)
			}
		}
		grant, err := m.guards[0].Lease(context.Background(), key, 0)
		if err != nil || !grant.Found && grant.Lease == nil {
			m.wrong("%s is locked: %v", key, err)
		}
	}
}

// TestGuardLeavesNothingOlderThanADelete lets two processes read, write and load while their common store fails in
// every way. No read sees what a Set or Delete before it should have removed, and once all is quiet nothing is left in
// the store that is older than the last Set or Delete of its key.
func TestGuardLeavesNothingOlderThanADelete(t *testing.T) {
	found := map[string]int{}
	synctest.Test(t, func(t *testing.T) {
		// Hidden behind the interface, since rapid would ask for the Deadline, which a bubble does not allow.
		tb := struct{ rapid.TB }{t}
		check := func(t *rapid.T) {
			steps := guardSteps(t)
			m := &guardModel{store: newFaultyStore()}
			for node := range m.guards {
				m.guards[node] = newGuard[string, int](m.store, guardTimeout, fmt.Sprint(node))
			}
			wrong := m.run(steps)
			for _, g := range m.guards {
				g.close()
			}
			if len(wrong) > 0 {
				t.Fatal(wrong)
			}
			for _, w := range m.writes {
				found[fmt.Sprintf("%s %v", w.op, w.successful)]++
			}
		}
		for range 10 { // a run takes little
			rapid.Check(tb, check)
		}
	})
	for _, kind := range []string{"set true", "set false", "delete true", "delete false", "fill true", "fill false"} {
		require.Greater(t, found[kind], 500, "too few of %s were tried", kind)
	}
}
