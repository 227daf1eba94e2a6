package sagatest

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/backstay-go/backstay/saga"
)

// purger is the store, if it can delete.
func (s *suite) purger() saga.Purger {
	s.Helper()
	p, can := s.store.(saga.Purger)
	if !can {
		s.Skipf("%T is no saga.Purger", s.store)
	}
	return p
}

// at creates an instance and brings it to a status.
func (s *suite) at(id, parent string, status saga.Status) {
	s.Helper()
	in := fresh(id, known)
	in.Parent = parent
	s.create(in)
	next := in.Progress
	next.Status = status
	e := saga.Event{Step: "first", Direction: saga.Forward, Attempt: 1, Outcome: saga.Done, Owner: "node"}
	recorded, err := s.store.Commit(s.ctx, []saga.Transition{{ID: id, Token: 1, Next: &next, Wait: time.Hour, Event: &e}})
	if err != nil || !recorded[0] {
		s.Fatalf("Commit(%q) = %v, %v", id, recorded, err)
	}
}

func (s *suite) purges() {
	store := s.purger()
	for id, status := range map[string]saga.Status{
		"running": saga.Running, "compensating": saga.Compensating, "stuck": saga.Stuck,
		"completed": saga.Completed, "compensated": saga.Compensated, "aborted": saga.Aborted,
	} {
		s.at(id, "", status)
		s.at(id+"/child", id, saga.Completed)
	}
	s.at("orphan/child", "orphan", saga.Completed)
	if n, err := store.Purge(s.ctx, time.Hour, 100); n != 0 || err != nil {
		s.Fatalf("Purge of what ended an hour ago = %d, %v", n, err)
	}
	if n, err := store.Purge(s.ctx, 0, 1); n != 1 || err != nil {
		s.Fatalf("Purge of one = %d, %v", n, err)
	}
	// A child may be found while its parent is still there, so that it takes no more than two calls.
	for range 2 {
		if _, err := store.Purge(s.ctx, 0, 100); err != nil {
			s.Fatalf("Purge: %v", err)
		}
	}
	ins, err := s.store.List(s.ctx, saga.Filter{})
	if err != nil {
		s.Fatalf("List: %v", err)
	}
	var left []string
	for _, in := range ins {
		left = append(left, in.ID)
	}
	want := []string{"compensating", "compensating/child", "running", "running/child", "stuck", "stuck/child"}
	if !slices.Equal(left, want) {
		s.Errorf("there are left %v, not %v", left, want)
	}
	s.create(fresh("completed", known))
	if _, history, err := s.store.Load(s.ctx, "completed"); len(history) != 0 || err != nil {
		s.Errorf("an ID that is used again has a history: %v, %v", history, err)
	}
}

func (s *suite) purgesAtOnce() {
	const instances, purgers = 250, 4
	store := s.purger()
	for i := range instances {
		s.at(fmt.Sprint(i), "", saga.Completed)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	sum := 0
	for range purgers {
		all.Go(func() {
			for n := 1; n > 0; {
				var err error
				if n, err = store.Purge(s.ctx, 0, 20); err != nil || n > 20 {
					s.Errorf("Purge of 20 = %d, %v", n, err)
				}
				mu.Lock()
				sum += n
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if sum != instances {
		s.Errorf("%d of %d were deleted", sum, instances)
	}
}
