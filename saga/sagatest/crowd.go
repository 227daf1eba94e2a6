package sagatest

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/backstay-go/backstay/saga"
)

// Bounds of what a crowd may cost.
const (
	crowdStart      = 2 * time.Second
	crowdGoroutines = 64
)

// Crowd checks that n instances which wait cost a runner no goroutine each, and that a runner which starts beside them finds what is due
// within two seconds; and then that some of them still take their event. The store must be empty. multiply copies the waiting instance of
// that ID to n others with the IDs "ID-1" to "ID-n"; if it is nil they are started one by one. Where the machine itself stood still
// meanwhile the start is tried again.
func Crowd(t *testing.T, store saga.Store, n int, multiply func(ctx context.Context, id string, n int) error) {
	t.Helper()
	s := &suite{T: t, ctx: t.Context(), store: store}
	waiting, err := saga.Define("waiting", 1,
		saga.Step[trip]{Name: "first", Do: func(context.Context, *trip) error { return nil }},
		saga.Await("gate", "go", 0, func(_ context.Context, p *trip, by int) error { p.Log = append(p.Log, fmt.Sprint(by)); return nil }))
	if err != nil {
		t.Fatal(err)
	}
	quick, err := saga.Define("quick", 1, saga.Step[trip]{Name: "only", Do: func(context.Context, *trip) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	most := s.gather(waiting, n, multiply)
	took := s.startsAmid(waiting, quick)
	most = max(most, s.sendsAmid(waiting, n))
	if most > crowdGoroutines {
		t.Errorf("a runner amid %d waiting instances has %d goroutines", n, most)
	}
	t.Logf("%d waiting: first result %v after the start, at most %d goroutines", n, took.Round(time.Millisecond), most)
}

// running runs a runner until stop is called.
func (s *suite) running(parts ...saga.Part) (r *saga.Runner, stop func()) {
	s.Helper()
	r, err := saga.NewRunner(s.store, saga.Config{}, parts...)
	if err != nil {
		s.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- r.Run(ctx) }()
	return r, sync.OnceFunc(func() {
		cancel()
		if err := <-stopped; err != nil {
			s.Errorf("Run: %v", err)
		}
	})
}

// gather has n instances, and the one they are copies of, wait, and returns how many goroutines the runner has that brought them there.
func (s *suite) gather(d *saga.Definition[trip], n int, multiply func(ctx context.Context, id string, n int) error) (goroutines int) {
	s.Helper()
	before := runtime.NumGoroutine()
	r, stop := s.running(d)
	defer stop()
	start := func(id string) {
		if err := saga.Start(s.ctx, r, d, id, trip{}); err != nil {
			s.Fatal(err)
		}
	}
	start("crowd")
	s.atGate("crowd")
	if multiply != nil {
		stop()
		if err := multiply(s.ctx, "crowd", n); err != nil {
			s.Fatal(err)
		}
	} else {
		for i := range n {
			start(fmt.Sprint("crowd-", i+1))
		}
	}
	for i := range n {
		if i%1000 == 0 || i == n-1 || multiply == nil {
			s.atGate(fmt.Sprint("crowd-", i+1))
		}
	}
	return runtime.NumGoroutine() - before
}

// atGate polls until an instance waits for its event.
func (s *suite) atGate(id string) {
	s.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); ; <-tick.C {
		in, _, err := s.store.Load(s.ctx, id)
		if err == nil && in.Awaits == "go" && in.Owner == "" {
			return
		}
		if time.Now().After(end) {
			s.Fatalf("instance %q does not wait: %+v, %v", id, in, err)
		}
	}
}

// startsAmid measures how long a new runner takes to its first result.
func (s *suite) startsAmid(parts ...*saga.Definition[trip]) (took time.Duration) {
	s.Helper()
	quick := parts[len(parts)-1]
	for try := 1; ; try++ {
		in, err := quick.NewInstance(fmt.Sprint("quick-", try), trip{})
		if err != nil {
			s.Fatal(err)
		}
		if _, err := s.store.Create(s.ctx, in, 0); err != nil {
			s.Fatal(err)
		}
		stall := watchStall()
		began := time.Now()
		r, stop := s.running(parts[0], quick)
		ctx, cancel := context.WithTimeout(s.ctx, patience)
		_, err = saga.Wait(ctx, r, quick, in.ID)
		took = time.Since(began)
		cancel()
		stop()
		stood := stall()
		switch {
		case err != nil:
			s.Fatal(err)
		case took < crowdStart:
			return took
		case stood < crowdStart/10 || try == 5:
			s.Fatalf("the first result came %v after the start, while the machine stood still for %v at most", took, stood)
		}
	}
}

// watchStall tells, when it is called, for how long the machine has let a ticking goroutine wait at most.
func watchStall() (worst func() time.Duration) {
	const beat = 10 * time.Millisecond
	quit, longest := make(chan struct{}), make(chan time.Duration)
	go func() {
		tick := time.NewTicker(beat)
		defer tick.Stop()
		var most time.Duration
		for last := time.Now(); ; {
			select {
			case <-tick.C:
				now := time.Now()
				most, last = max(most, now.Sub(last)-beat), now
			case <-quit:
				longest <- most
				return
			}
		}
	}()
	return func() time.Duration { close(quit); return <-longest }
}

// sendsAmid has some of the crowd go on, and returns how many goroutines a runner amid the others has.
func (s *suite) sendsAmid(d *saga.Definition[trip], n int) (goroutines int) {
	s.Helper()
	before := runtime.NumGoroutine()
	r, stop := s.running(d)
	defer stop()
	for i := 1; i <= n; i += max(1, n/10) {
		id := fmt.Sprint("crowd-", i)
		if err := saga.Send(s.ctx, r, id, "go", i); err != nil {
			s.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(s.ctx, patience)
		res, err := saga.Wait(ctx, r, d, id)
		cancel()
		if err != nil {
			s.Fatal(err)
		}
		s.equal("log of "+id, res.State.Log, []string{fmt.Sprint(i)})
		goroutines = max(goroutines, runtime.NumGoroutine()-before)
	}
	return goroutines
}
