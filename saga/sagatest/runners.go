package sagatest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/backstay-go/backstay/saga"
)

// trip is the state of the sagas that the suite runs.
type trip struct{ Log []string }

// travel defines a saga of three steps; the last one fails if fail says so.
func (s *suite) travel(seen func(key string), fail error) *saga.Definition[trip] {
	step := func(name string, err error) saga.Step[trip] {
		run := func(result error) func(context.Context, *trip) error {
			return func(ctx context.Context, t *trip) error {
				seen(saga.IdempotencyKey(ctx))
				t.Log = append(t.Log, saga.IdempotencyKey(ctx))
				return result
			}
		}
		return saga.Step[trip]{Name: name, Do: run(err), Undo: run(nil), Retry: saga.Retry{MaxAttempts: 1}}
	}
	d, err := saga.Define("known", 1, step("first", nil), step("second", nil), step("third", fail))
	if err != nil {
		s.Fatal(err)
	}
	return d
}

// node runs a runner until the test ends.
func (s *suite) node(parts ...saga.Part) *saga.Runner {
	s.Helper()
	r, err := saga.NewRunner(s.store, saga.Config{Lease: lease, PollMax: 20 * time.Millisecond}, parts...)
	if err != nil {
		s.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error)
	go func() { stopped <- r.Run(ctx) }()
	s.Cleanup(func() {
		cancel()
		if err := <-stopped; err != nil {
			s.Errorf("Run: %v", err)
		}
	})
	return r
}

func (s *suite) runsOnTwoNodes() {
	var mu sync.Mutex
	runs := map[string]int{}
	d := s.travel(func(key string) { mu.Lock(); runs[key]++; mu.Unlock() }, nil)
	nodes := []*saga.Runner{s.node(d), s.node(d)}
	const n = 30
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			id := fmt.Sprint("trip", i)
			if err := saga.Start(s.ctx, nodes[i%2], d, id, trip{}); err != nil {
				s.Error(err)
				return
			}
			ctx, cancel := context.WithTimeout(s.ctx, patience)
			defer cancel()
			res, err := saga.Wait(ctx, nodes[(i+1)%2], d, id)
			if err != nil {
				s.Error(err)
			}
			s.equal("log of "+id, res.State.Log, []string{id + "/first/do", id + "/second/do", id + "/third/do"})
			s.equal("history of "+id, len(res.History), 3)
		})
	}
	wg.Wait()
	mu.Lock()
	defer mu.Unlock()
	s.equal("steps run", len(runs), 3*n)
	for key, count := range runs {
		s.equal("runs of "+key, count, 1)
	}
}

func (s *suite) compensates() {
	d := s.travel(func(string) {}, errors.New("no room"))
	r := s.node(d)
	if err := saga.Start(s.ctx, r, d, "a", trip{}); err != nil {
		s.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	res, err := saga.Wait(ctx, r, d, "a")
	if !errors.Is(err, saga.ErrCompensated) {
		s.Fatalf("Wait: %v, want ErrCompensated", err)
	}
	s.equal("log", res.State.Log, []string{"a/first/do", "a/second/do", "a/third/undo", "a/second/undo", "a/first/undo"})
}

func (s *suite) takesOver() {
	d, err := saga.Define("known", 1, saga.Step[trip]{
		Name: "first",
		Do: func(ctx context.Context, t *trip) error {
			a, _ := saga.Current(ctx)
			s.equal("attempt", a.Number, 2)
			return nil
		},
	})
	if err != nil {
		s.Fatal(err)
	}
	in, err := d.NewInstance("a", trip{})
	if err != nil {
		s.Fatal(err)
	}
	in.Owner = "a node that died"
	if _, err := s.store.Create(s.ctx, in, brief); err != nil {
		s.Fatal(err)
	}
	r := s.node(d)
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	if _, err := saga.Wait(ctx, r, d, "a"); err != nil {
		s.Error(err)
	}
}
