package sagatest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/backstay-go/backstay/saga"
)

// lease is long enough not to run out between two lines of a test.
const lease = time.Minute

// patience is how long a test waits for what must come.
const patience = time.Minute

// brief is a lease or pause that a test waits for.
const brief = 100 * time.Millisecond

var (
	known   = saga.Ref{Name: "known", Version: 1}
	unknown = saga.Ref{Name: "known", Version: 2}
)

// Run checks the stores that open returns. It is called once for each subtest, has to return an empty store, and cleans up
// through t.Cleanup.
func Run(t *testing.T, open func(t *testing.T) saga.Store) {
	for name, test := range map[string]func(*suite){
		"an instance is kept whole":                       (*suite).keepsInstances,
		"creation is idempotent by id":                    (*suite).createsOnce,
		"an instance created for an owner is held":        (*suite).createsHeld,
		"a claim is exclusive":                            (*suite).claimsExclusively,
		"a claim keeps to its limit and definitions":      (*suite).claimsWithinBounds,
		"the instance that is due longest is claimed":     (*suite).claimsInOrder,
		"an expired lease is an attempt in doubt":         (*suite).expires,
		"a heartbeat extends the lease":                   (*suite).extends,
		"a stale token changes nothing":                   (*suite).fences,
		"a stale token does not spoil its neighbours":     (*suite).fencesAlone,
		"a change can be recorded only once":              (*suite).recordsOnce,
		"a waiting instance is not due":                   (*suite).waits,
		"an instance handed back by others keeps its due": (*suite).waitsForLease,
		"an instance that is held stays held":             (*suite).holds,
		"an ended instance is never due":                  (*suite).ends,
		"history is complete and in the store's time":     (*suite).remembers,
		"a list is filtered, ordered and paged":           (*suite).lists,
		"an unknown id is not found":                      (*suite).missesUnknown,
		"a cancelled call fails":                          (*suite).obeysCancellation,
		"a delivery is kept whole and only once":          (*suite).delivers,
		"deliveries at once are all kept":                 (*suite).deliversAtOnce,
		"a delivery wakes what waits and only that":       (*suite).wakes,
		"a delivery disturbs nobody who holds it":         (*suite).leavesHolders,
		"what came meanwhile ends a wait that begins":     (*suite).seesWhatCame,
		"an ended instance receives nothing":              (*suite).refusesDeliveries,
		"a claim tells the store's time":                  (*suite).tellsTime,
		"a parent is kept":                                (*suite).keepsParents,
		"events, sleeps and cancellation work":            (*suite).waitsForEvents,
		"a group is done by one node after another":       (*suite).groups,
		"a child wakes and follows its parent":            (*suite).children,
		"what ended long ago is purged":                   (*suite).purges,
		"those who purge at once share the work":          (*suite).purgesAtOnce,
		"two runners share the work":                      (*suite).runsOnTwoNodes,
		"a failing saga is compensated":                   (*suite).compensates,
		"a dead owner's instance is taken over":           (*suite).takesOver,
	} {
		t.Run(name, func(t *testing.T) { test(&suite{T: t, ctx: t.Context(), store: open(t)}) })
	}
}

type suite struct {
	*testing.T
	ctx   context.Context
	store saga.Store
}

func fresh(id string, ref saga.Ref) saga.Instance {
	return saga.Instance{ID: id, Ref: ref, Progress: saga.Progress{
		Status: saga.Running, Direction: saga.Forward, Step: "first", State: json.RawMessage(`{"n":1}`),
	}}
}

func (s *suite) create(in saga.Instance) {
	s.Helper()
	if created, err := s.store.Create(s.ctx, in, lease); err != nil || !created {
		s.Fatalf("Create(%q) = %v, %v", in.ID, created, err)
	}
}

func (s *suite) claim(owner string, limit int, d time.Duration) []saga.Instance {
	s.Helper()
	ins, err := s.store.Claim(s.ctx, saga.Claim{Owner: owner, Known: []saga.Ref{known}, Limit: limit, Lease: d})
	if err != nil {
		s.Fatalf("Claim: %v", err)
	}
	return ins
}

// one creates an instance and claims it.
func (s *suite) one(d time.Duration) saga.Instance {
	s.Helper()
	s.create(fresh("a", known))
	ins := s.claim("node", 1, d)
	if len(ins) != 1 {
		s.Fatalf("a new instance is not due: claimed %d", len(ins))
	}
	return ins[0]
}

func (s *suite) commit(t saga.Transition) bool {
	s.Helper()
	recorded, err := s.store.Commit(s.ctx, []saga.Transition{t})
	if err != nil || len(recorded) != 1 {
		s.Fatalf("Commit = %v, %v", recorded, err)
	}
	return recorded[0]
}

func (s *suite) load(id string) (saga.Instance, []saga.Event) {
	s.Helper()
	in, history, err := s.store.Load(s.ctx, id)
	if err != nil {
		s.Fatalf("Load(%q): %v", id, err)
	}
	return in, history
}

// within waits until cond holds.
func (s *suite) within(what string, cond func() bool) {
	s.Helper()
	end := time.After(patience)
	tick := time.NewTicker(3 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-end:
			s.Fatalf("not within %v: %s", patience, what)
		}
	}
}

func (s *suite) equal(what string, got, want any) {
	s.Helper()
	if !reflect.DeepEqual(got, want) {
		s.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// next is the progress of in, moved to another step.
func next(in saga.Instance, step string) *saga.Progress {
	p := in.Progress
	p.Step = step
	return &p
}

func (s *suite) keepsInstances() {
	in := s.one(lease)
	want := saga.Progress{
		Status: saga.Compensating, Direction: saga.Backward, Step: "Zweiter Schritt, ‘x’ \" -- ;", Attempt: 3, Rejected: 4, Doubt: true,
		Cause: "cause\nwith lines", Error: "ошибка", Awaits: "ein Ereignis", Timer: 3*time.Hour + 1,
		Marks: map[string]saga.Mark{
			"":        {Order: saga.Skipped},
			"a":       {Omitted: true},
			"b/c ü'?": {Done: true, Undone: true, Result: json.RawMessage(`{"x":"?"}`), Attempt: 2, Rejected: 3, Doubt: true, Error: "e", Failed: true},
		},
		State: json.RawMessage(`{"text":"ü%_\\ '","n":[1,2]}`),
	}
	if !s.commit(saga.Transition{ID: "a", Token: in.Token, Next: &want, Hold: lease}) {
		s.Fatal("the claimed token was refused")
	}
	got, _ := s.load("a")
	s.equal("progress", got.Progress, want)
	s.equal("definition", got.Ref, known)
	s.equal("owner", got.Owner, "node")
	if got.Created.IsZero() || got.Updated.Before(got.Created) || !got.Due.After(got.Created) {
		s.Errorf("times: created %v, updated %v, due %v", got.Created, got.Updated, got.Due)
	}
	if d := time.Since(got.Created).Abs(); d > time.Hour {
		s.Logf("the store's clock is %v off", d)
	}
}

func (s *suite) createsOnce() {
	var mu sync.Mutex
	var wg sync.WaitGroup
	created := 0
	for range 8 {
		wg.Go(func() {
			ok, err := s.store.Create(s.ctx, fresh("a", known), 0)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				s.Error(err)
			}
			if ok {
				created++
			}
		})
	}
	wg.Wait()
	s.equal("created", created, 1)
	in := s.claim("node", 1, lease)[0]
	s.commit(saga.Transition{ID: "a", Token: in.Token, Next: next(in, "second"), Hold: lease})
	if ok, err := s.store.Create(s.ctx, fresh("a", known), 0); ok || err != nil {
		s.Fatalf("a second Create = %v, %v", ok, err)
	}
	in, _ = s.load("a")
	s.equal("step after a second Create", in.Step, "second")
}

func (s *suite) createsHeld() {
	in := fresh("a", known)
	in.Owner = "node"
	s.create(in)
	s.equal("claimed by another", len(s.claim("other", 1, lease)), 0)
	if !s.commit(saga.Transition{ID: "a", Token: 1, Next: next(in, "second"), Hold: lease}) {
		s.Error("the token of a new instance is not 1")
	}
}

func (s *suite) claimsExclusively() {
	const n = 60
	for i := range n {
		s.create(fresh(fmt.Sprint(i), known))
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	owners := map[string]string{}
	for c := range 6 {
		wg.Go(func() {
			owner := fmt.Sprint("node", c)
			for range 12 {
				ins, err := s.store.Claim(s.ctx, saga.Claim{Owner: owner, Known: []saga.Ref{known}, Limit: 7, Lease: lease})
				if err != nil {
					s.Error(err)
				}
				mu.Lock()
				for _, in := range ins {
					if was, twice := owners[in.ID]; twice {
						s.Errorf("%q was claimed by %s and %s", in.ID, was, owner)
					}
					owners[in.ID] = owner
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for range n {
		for _, in := range s.claim("last", n, lease) {
			owners[in.ID] = "last"
		}
	}
	s.equal("instances claimed", len(owners), n)
}

func (s *suite) claimsWithinBounds() {
	for i := range 5 {
		s.create(fresh(fmt.Sprint("u", i), unknown))
	}
	for i := range 3 {
		s.create(fresh(fmt.Sprint("k", i), known))
	}
	s.equal("claimed at most 2", len(s.claim("node", 2, lease)), 2)
	rest := s.claim("node", 10, lease)
	s.equal("the rest", len(rest), 1)
	for _, in := range rest {
		s.equal("definition", in.Ref, known)
		s.equal("attempt", in.Attempt, 0)
		s.equal("doubt", in.Doubt, false)
	}
	in, _ := s.load("u0")
	s.equal("owner of an unknown one", in.Owner, "")
}

func (s *suite) claimsInOrder() {
	late := s.one(lease)
	s.create(fresh("b", known))
	s.commit(saga.Transition{ID: "a", Token: late.Token, Next: next(late, "second"), Wait: 30 * time.Millisecond})
	s.within("a is due", func() bool {
		in, _ := s.load("a")
		s.create(fresh("clock"+fmt.Sprint(time.Now().UnixNano()), unknown))
		all, err := s.store.List(s.ctx, saga.Filter{Except: []saga.Ref{known}, Limit: 1000})
		return err == nil && all[len(all)-1].Created.After(in.Due)
	})
	if ins := s.claim("node", 1, lease); len(ins) != 1 || ins[0].ID != "b" {
		s.Errorf("claimed %v, want b, which was due first", ins)
	}
}

func (s *suite) expires() {
	was := s.one(brief)
	var ins []saga.Instance
	s.within("the lease expires", func() bool { ins = s.claim("other", 1, lease); return len(ins) == 1 })
	s.equal("attempt", ins[0].Attempt, 1)
	s.equal("doubt", ins[0].Doubt, true)
	s.equal("owner", ins[0].Owner, "other")
	s.equal("token is higher", ins[0].Token > was.Token, true)
	stored, _ := s.load("a")
	s.equal("stored progress", stored.Progress, ins[0].Progress)
	s.equal("stored token", stored.Token, ins[0].Token)
}

func (s *suite) extends() {
	in := s.one(brief)
	if !s.commit(saga.Transition{ID: "a", Token: in.Token, Hold: lease}) {
		s.Fatal("a heartbeat with the right token was refused")
	}
	after, history := s.load("a")
	s.equal("token", after.Token, in.Token)
	s.equal("progress", after.Progress, in.Progress)
	s.equal("history", len(history), 0)
	s.equal("extended", after.Due.Sub(after.Updated) > lease/2, true)
}

func (s *suite) fences() {
	old := s.one(brief)
	s.within("the lease expires", func() bool { return len(s.claim("other", 1, lease)) == 1 })
	before, _ := s.load("a")
	e := &saga.Event{Step: "first", Outcome: saga.Done, Owner: "node"}
	end, await := next(old, "second"), next(old, "second")
	end.Status, await.Awaits = saga.Completed, "event"
	for name, t := range map[string]saga.Transition{
		"change":    {ID: "a", Token: old.Token, Next: next(old, "second"), Hold: lease, Event: e},
		"hand back": {ID: "a", Token: old.Token, Next: next(old, "second"), Event: e},
		"heartbeat": {ID: "a", Token: old.Token, Hold: time.Hour},
		"end":       {ID: "a", Token: old.Token, Next: end, Event: e},
		"await":     {ID: "a", Token: old.Token, Next: await, Wait: lease, Event: e},
		"repair":    {ID: "a", Token: old.Token, Next: next(old, "second"), AfterLease: true, Event: e},
		"future":    {ID: "a", Token: before.Token + 1, Next: next(old, "second")},
		"missing":   {ID: "b", Token: 1, Next: next(old, "second")},
	} {
		s.equal(name+" recorded", s.commit(t), false)
	}
	after, history := s.load("a")
	s.equal("instance", after, before)
	s.equal("history", len(history), 0)
}

func (s *suite) fencesAlone() {
	a := s.one(lease)
	s.create(fresh("b", known))
	b := s.claim("node", 1, lease)[0]
	recorded, err := s.store.Commit(s.ctx, []saga.Transition{
		{ID: "a", Token: a.Token - 1, Next: next(a, "second")},
		{ID: "b", Token: b.Token, Next: next(b, "second"), Hold: lease},
	})
	if err != nil {
		s.Fatal(err)
	}
	s.equal("recorded", recorded, []bool{false, true})
	in, _ := s.load("b")
	s.equal("step of b", in.Step, "second")
}

func (s *suite) recordsOnce() {
	in := s.one(lease)
	t := saga.Transition{
		ID: "a", Token: in.Token, Next: next(in, "second"), Hold: lease, Event: &saga.Event{Step: "first", Outcome: saga.Done},
	}
	s.equal("recorded at first", s.commit(t), true)
	s.equal("recorded again", s.commit(t), false)
	after, history := s.load("a")
	s.equal("token", after.Token, in.Token+1)
	s.equal("history", len(history), 1)
}

func (s *suite) waits() {
	in := s.one(lease)
	s.commit(saga.Transition{ID: "a", Token: in.Token, Next: next(in, "first"), Wait: lease})
	s.equal("claimed while it waits", len(s.claim("node", 1, lease)), 0)
	waiting, _ := s.load("a")
	s.equal("owner", waiting.Owner, "")
	s.equal("pause", waiting.Due.Sub(waiting.Updated) >= lease, true)
	s.create(fresh("b", known))
	in = s.claim("node", 1, lease)[0]
	s.equal("the other one", in.ID, "b")
	s.commit(saga.Transition{ID: "b", Token: in.Token, Next: next(in, "first"), Wait: brief})
	var ins []saga.Instance
	s.within("the pause ends", func() bool { ins = s.claim("node", 1, lease); return len(ins) == 1 })
	s.equal("attempt after a pause", ins[0].Attempt, 0)
	s.equal("doubt after a pause", ins[0].Doubt, false)
}

func (s *suite) waitsForLease() {
	in := s.one(lease)
	s.equal("recorded", s.commit(saga.Transition{ID: "a", Token: in.Token, Next: next(in, "first"), AfterLease: true}), true)
	after, _ := s.load("a")
	s.equal("due", after.Due.Sub(after.Created) > lease/2, true)
	s.equal("owner", after.Owner, "")
	s.equal("claimed", len(s.claim("other", 1, lease)), 0)
	s.equal("heartbeat of the former owner", s.commit(saga.Transition{ID: "a", Token: in.Token, Hold: lease}), false)
}

func (s *suite) holds() {
	in := s.one(lease)
	s.commit(saga.Transition{ID: "a", Token: in.Token, Next: next(in, "second"), Hold: lease})
	s.equal("claimed", len(s.claim("other", 1, lease)), 0)
	after, _ := s.load("a")
	s.equal("owner", after.Owner, "node")
}

func (s *suite) ends() {
	for _, status := range []saga.Status{saga.Completed, saga.Compensated, saga.Stuck, saga.Aborted} {
		id := string(status)
		s.create(fresh(id, known))
		in := s.claim("node", 1, lease)[0]
		p := next(in, "last")
		p.Status = status
		s.commit(saga.Transition{ID: id, Token: in.Token, Next: p, AfterLease: status == saga.Aborted})
		after, _ := s.load(id)
		s.equal(id+" is due", after.Due.IsZero(), true)
		s.equal(id+" is owned by", after.Owner, "")
	}
	s.equal("claimed", len(s.claim("node", 10, lease)), 0)
}

func (s *suite) remembers() {
	in := s.one(lease)
	wrong := time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 5 {
		e := &saga.Event{
			Step: "first", Direction: saga.Backward, Attempt: i + 1, Outcome: saga.Failed, Error: "error 'ü'", Owner: "node",
			Started: wrong, Ended: wrong.Add(time.Second),
		}
		if !s.commit(saga.Transition{ID: "a", Token: in.Token + int64(i), Next: next(in, "first"), Hold: lease, Event: e}) {
			s.Fatal("refused")
		}
	}
	after, history := s.load("a")
	s.equal("length", len(history), 5)
	for i, e := range history {
		s.equal("took", e.Ended.Sub(e.Started), time.Second)
		if e.Ended.Before(after.Created) || e.Ended.After(after.Updated) {
			s.Errorf("event %d ended at %v, the instance lived from %v to %v", i, e.Ended, after.Created, after.Updated)
		}
		e.Started, e.Ended = time.Time{}, time.Time{}
		s.equal("event", e, saga.Event{
			Step: "first", Direction: saga.Backward, Attempt: i + 1, Outcome: saga.Failed, Error: "error 'ü'", Owner: "node",
		})
	}
}

func (s *suite) missesUnknown() {
	if _, _, err := s.store.Load(s.ctx, "nobody"); !errors.Is(err, saga.ErrNotFound) {
		s.Errorf("Load of an unknown id: %v, want ErrNotFound", err)
	}
}

func (s *suite) obeysCancellation() {
	in := s.one(lease)
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	if _, err := s.store.Commit(ctx, []saga.Transition{{ID: "a", Token: in.Token, Next: next(in, "second")}}); err == nil {
		s.Error("Commit with a cancelled context returned no error")
	}
	if _, err := s.store.Claim(ctx, saga.Claim{Owner: "node", Known: []saga.Ref{known}, Limit: 1, Lease: lease}); err == nil {
		s.Error("Claim with a cancelled context returned no error")
	}
	after, _ := s.load("a")
	s.equal("instance", after.Token, in.Token)
}

func (s *suite) lists() {
	for i := range 6 {
		ref := known
		if i%2 == 1 {
			ref = saga.Ref{Name: "odd", Version: 1}
		}
		s.create(fresh(fmt.Sprint("i", i), ref))
	}
	in := s.claim("node", 1, lease)[0]
	p := next(in, "first")
	p.Status = saga.Stuck
	s.commit(saga.Transition{ID: in.ID, Token: in.Token, Next: p})
	for name, c := range map[string]struct {
		f    saga.Filter
		want []string
	}{
		"all":        {saga.Filter{}, []string{"i0", "i1", "i2", "i3", "i4", "i5"}},
		"page":       {saga.Filter{After: "i1", Limit: 2}, []string{"i2", "i3"}},
		"definition": {saga.Filter{Definition: "odd"}, []string{"i1", "i3", "i5"}},
		"except":     {saga.Filter{Except: []saga.Ref{known, {Name: "odd", Version: 2}}}, []string{"i1", "i3", "i5"}},
		"status":     {saga.Filter{Statuses: []saga.Status{saga.Stuck, saga.Aborted}}, []string{in.ID}},
		"nothing":    {saga.Filter{Definition: "odd", Statuses: []saga.Status{saga.Stuck}}, nil},
	} {
		ins, err := s.store.List(s.ctx, c.f)
		if err != nil {
			s.Fatalf("%s: %v", name, err)
		}
		var ids []string
		for _, in := range ins {
			ids = append(ids, in.ID)
		}
		s.equal(name, ids, c.want)
	}
}
