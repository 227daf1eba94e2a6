package sagatest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/backstay-go/backstay/saga"
)

func (s *suite) deliver(id, name, data string) bool {
	s.Helper()
	return s.commit(saga.Transition{ID: id, Token: 99, Deliver: &saga.Delivery{Name: name, Data: json.RawMessage(data)}})
}

// parked is an instance that waits for an event.
func (s *suite) parked(seen int, wait time.Duration) saga.Instance {
	s.Helper()
	in := s.one(lease)
	p := next(in, "first")
	p.Awaits = "x"
	if !s.commit(saga.Transition{ID: "a", Token: in.Token, Next: p, Seen: seen, Wait: wait}) {
		s.Fatal("the claimed token was refused")
	}
	after, _ := s.load("a")
	return after
}

func (s *suite) delivers() {
	s.create(fresh("a", known))
	before, _ := s.load("a")
	s.equal("recorded", s.deliver("a", "x", `{"text":"ü%_\\ '","n":[1,2]}`), true)
	s.equal("recorded again", s.deliver("a", "x", `"another"`), true)
	s.equal("recorded", s.deliver("a", "child/y/completed", `null`), true)
	s.equal("recorded for nobody", s.deliver("b", "x", `1`), false)
	after, history := s.load("a")
	s.equal("received", after.Received, map[string]json.RawMessage{
		"x": json.RawMessage(`{"text":"ü%_\\ '","n":[1,2]}`), "child/y/completed": json.RawMessage(`null`),
	})
	s.equal("token", after.Token, before.Token)
	s.equal("progress", after.Progress, before.Progress)
	s.equal("history", len(history), 0)
	claimed := s.claim("node", 1, lease)
	s.equal("claimed with", claimed[0].Received, after.Received)
}

func (s *suite) deliversAtOnce() {
	s.create(fresh("a", known))
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			name := fmt.Sprint("x", i/2)
			for end := time.Now().Add(patience); ; {
				recorded, err := s.store.Commit(s.ctx, []saga.Transition{{ID: "a", Deliver: &saga.Delivery{Name: name, Data: []byte(`1`)}}})
				if err == nil && recorded[0] {
					return
				}
				if time.Now().After(end) {
					s.Errorf("Commit = %v, %v", recorded, err)
					return
				}
			}
		})
	}
	wg.Wait()
	in, _ := s.load("a")
	s.equal("events received", len(in.Received), 6)
}

func (s *suite) wakes() {
	s.create(fresh("b", known))
	b := s.claim("node", 1, lease)[0]
	s.commit(saga.Transition{ID: "b", Token: b.Token, Next: next(b, "first"), Wait: lease})
	s.parked(0, lease)
	s.equal("claimed while it waits", len(s.claim("node", 9, lease)), 0)
	s.deliver("a", "x", `1`)
	s.deliver("b", "x", `1`) // it waits for the time only
	ins := s.claim("node", 9, lease)
	s.equal("claimed after the delivery", len(ins), 1)
	s.equal("id", ins[0].ID, "a")
	s.equal("attempt", ins[0].Attempt, 0)
	s.equal("doubt", ins[0].Doubt, false)
}

func (s *suite) leavesHolders() {
	s.parked(0, 0)
	in := s.claim("node", 1, lease)[0]
	s.equal("awaits", in.Awaits, "x")
	s.deliver("a", "x", `1`)
	s.equal("claimed by another", len(s.claim("other", 1, lease)), 0)
	s.equal("the holder's change", s.commit(saga.Transition{ID: "a", Token: in.Token, Next: next(in, "second"), Hold: lease}), true)
	after, _ := s.load("a")
	s.equal("received", len(after.Received), 1)
}

func (s *suite) seesWhatCame() {
	s.create(fresh("b", known))
	s.deliver("b", "y", `1`)
	b := s.claim("node", 1, lease)[0]
	p := next(b, "first")
	p.Awaits = "x"
	s.commit(saga.Transition{ID: "b", Token: b.Token, Next: p, Seen: 1, Wait: lease})
	s.equal("claimed though it knew all", len(s.claim("node", 9, lease)), 0)

	s.create(fresh("a", known))
	in := s.claim("node", 1, lease)[0]
	s.deliver("a", "y", `1`)
	p = next(in, "first")
	p.Awaits = "x"
	s.commit(saga.Transition{ID: "a", Token: in.Token, Next: p, Seen: 0, Wait: lease})
	ins := s.claim("node", 9, lease)
	s.equal("claimed as something has come", len(ins), 1)

	p = next(ins[0], "first")
	p.Awaits = ""
	s.commit(saga.Transition{ID: "a", Token: ins[0].Token, Next: p, Seen: 0, Wait: lease})
	s.equal("claimed though it waits for nothing", len(s.claim("node", 9, lease)), 0)
}

func (s *suite) refusesDeliveries() {
	for _, status := range []saga.Status{saga.Completed, saga.Compensated, saga.Aborted, saga.Stuck} {
		id := string(status)
		s.create(fresh(id, known))
		in := s.claim("node", 1, lease)[0]
		p := next(in, "last")
		p.Status, p.Awaits = status, "x"
		s.commit(saga.Transition{ID: id, Token: in.Token, Next: p})
		s.equal("recorded for one that is "+id, s.deliver(id, "x", `1`), status == saga.Stuck)
	}
	s.equal("claimed", len(s.claim("node", 9, lease)), 0)
}

func (s *suite) tellsTime() {
	s.parked(0, brief)
	var ins []saga.Instance
	s.within("the wait ends", func() bool { ins = s.claim("node", 1, lease); return len(ins) == 1 })
	if age := ins[0].Updated.Sub(ins[0].Created); age < brief {
		s.Errorf("claimed at the age of %v, after a wait of %v", age, brief)
	}
}

func (s *suite) keepsParents() {
	in := fresh("a/b", known)
	in.Parent = "a"
	s.create(in)
	s.equal("parent when claimed", s.claim("node", 1, lease)[0].Parent, "a")
	after, _ := s.load("a/b")
	s.equal("parent", after.Parent, "a")
}

// finish waits for the end of an instance.
func (s *suite) finish(r *saga.Runner, d *saga.Definition[trip], id string, want error) saga.Result[trip] {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	res, err := saga.Wait(ctx, r, d, id)
	if !errors.Is(err, want) || (want == nil && err != nil) {
		s.Fatalf("Wait: %v, want %v", err, want)
	}
	return res
}

func (s *suite) definition(steps ...saga.Step[trip]) *saga.Definition[trip] {
	s.Helper()
	d, err := saga.Define("known", 1, steps...)
	if err != nil {
		s.Fatal(err)
	}
	return d
}

func (s *suite) begin(r *saga.Runner, d *saga.Definition[trip], ids ...string) {
	s.Helper()
	for _, id := range ids {
		if err := saga.Start(s.ctx, r, d, id, trip{}); err != nil {
			s.Fatal(err)
		}
	}
}

// logs is a step that writes down its key.
func logs(name string) saga.Step[trip] {
	log := func(ctx context.Context, t *trip) error { t.Log = append(t.Log, saga.IdempotencyKey(ctx)); return nil }
	return saga.Step[trip]{Name: name, Do: log, Undo: log}
}

func (s *suite) waitsForEvents() {
	d := s.definition(logs("first"),
		saga.SleepUntil("nap", func(trip) time.Time { return time.Time{} }),
		saga.Await("gate", "go", 0, func(_ context.Context, t *trip, word string) error { t.Log = append(t.Log, word); return nil }),
		logs("last"))
	one, two := s.node(d), s.node(d)
	s.begin(one, d, "early", "late", "never")
	if err := saga.Send(s.ctx, two, "early", "go", "now"); err != nil {
		s.Error(err)
	}
	s.within("the others wait", func() bool {
		late, _ := s.load("late")
		never, _ := s.load("never")
		return late.Awaits == "go" && never.Awaits == "go"
	})
	if err := saga.Send(s.ctx, two, "late", "go", "then"); err != nil {
		s.Error(err)
	}
	if err := two.Cancel(s.ctx, "never"); err != nil {
		s.Error(err)
	}
	s.equal("early", s.finish(two, d, "early", nil).State.Log, []string{"early/first/do", "now", "early/last/do"})
	s.equal("late", s.finish(one, d, "late", nil).State.Log, []string{"late/first/do", "then", "late/last/do"})
	s.equal("never", s.finish(one, d, "never", saga.ErrCompensated).State.Log, []string{"never/first/do", "never/first/undo"})
}

func (s *suite) groups() {
	var mu sync.Mutex
	runs := map[string]int{}
	branch := func(name string) saga.Branch[trip, string] {
		return saga.Branch[trip, string]{
			Name: name,
			Do: func(ctx context.Context, _ trip) (string, error) {
				key := saga.IdempotencyKey(ctx)
				mu.Lock()
				defer mu.Unlock()
				if runs[key]++; runs[key] == 1 && name == "y" {
					return "", errors.New("not yet")
				}
				return key, nil
			},
			Merge: func(t *trip, key string) { t.Log = append(t.Log, key) },
		}
	}
	d := s.definition(saga.Parallel("group", branch("x"), branch("y"), branch("z")), logs("last"))
	one, two := s.node(d), s.node(d)
	s.begin(one, d, "a")
	s.equal("log", s.finish(two, d, "a", nil).State.Log, []string{"a/group/x/do", "a/group/y/do", "a/group/z/do", "a/last/do"})
	mu.Lock()
	defer mu.Unlock()
	s.equal("runs", runs, map[string]int{"a/group/x/do": 1, "a/group/y/do": 2, "a/group/z/do": 1})
}

func (s *suite) children() {
	child, err := saga.Define("child", 1, logs("first"), logs("second"))
	if err != nil {
		s.Fatal(err)
	}
	sub := saga.Child("sub", child, func(t trip) trip { return t }, func(t *trip, c trip) { t.Log = c.Log })
	no := saga.Step[trip]{Name: "no", When: func(t trip) bool { return t.Log[0] == "bad/start/do" }, Do: func(context.Context, *trip) error {
		return saga.Permanent(errors.New("no"))
	}}
	d := s.definition(logs("start"), sub, no)
	one, two := s.node(d), s.node(d)
	s.begin(one, d, "good", "bad")
	s.equal("log", s.finish(two, d, "good", nil).State.Log,
		[]string{"good/start/do", "good/sub/first/do", "good/sub/second/do"})
	s.finish(two, d, "bad", saga.ErrCompensated)
	in, _ := s.load("bad/sub")
	s.equal("status of the child", in.Status, saga.Compensated)
}
