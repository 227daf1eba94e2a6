package resilience

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay/bench/cases"
)

// circuitSpec is what a case asks of a breaker.
type circuitSpec struct {
	failures int           // that open it, in a row where there is no window
	window   time.Duration // of time, within which the failures fall; 0: any
	delay    time.Duration // until half-open
	probes   int
	lease    time.Duration                     // how long a probe may take, where the library has such a thing
	onChange func(b circuit, read func() uint) // read looks at the data of the event
}

// circuit is a breaker reduced to what the cases need.
type circuit struct {
	do    func(ctx context.Context, op func() error) error
	state func() string // "closed", "open" or "half-open"
}

func (c circuit) fail() error {
	return c.do(context.Background(), func() error { return errBroken })
}
func (c circuit) succeed() error { return c.do(context.Background(), func() error { return nil }) }

func (c circuit) trip(failures int) error {
	for range failures {
		_ = c.fail()
	}
	if s := c.state(); s != "open" {
		return fmt.Errorf("%d failures leave it %s", failures, s)
	}
	return nil
}

// flight is a call that is under way until it is told how to end.
type flight struct {
	admitted bool
	end      chan error
	ended    chan struct{}
}

// launch starts a call and returns when it runs or has been rejected.
func (c circuit) launch() *flight {
	f := &flight{end: make(chan error, 1), ended: make(chan struct{})}
	runs := make(chan struct{})
	go func() {
		defer close(f.ended)
		_ = c.do(context.Background(), func() error {
			f.admitted = true
			close(runs)
			return <-f.end
		})
	}()
	select {
	case <-runs:
	case <-f.ended:
	}
	return f
}

func (f *flight) finish(err error) {
	f.end <- err
	<-f.ended
}

// admits launches n calls and counts those that run.
func (c circuit) admits(n int) (admitted int, running []*flight) {
	for range n {
		if f := c.launch(); f.admitted {
			admitted++
			running = append(running, f)
		}
	}
	return admitted, running
}

func finishAll(running []*flight) {
	for _, f := range running {
		f.finish(nil)
	}
}

const openDelay = 100 * time.Millisecond

func threeProbes() circuitSpec { return circuitSpec{failures: 3, delay: openDelay, probes: 3} }
func oneProbe() circuitSpec    { return circuitSpec{failures: 1, delay: openDelay, probes: 1} }

func halfOpenAdmitsExactly(create func(circuitSpec) circuit) error {
	c := create(threeProbes())
	if err := c.trip(3); err != nil {
		return err
	}
	cases.Pause(2 * openDelay)
	admitted, running := c.admits(30)
	finishAll(running)
	if admitted != 3 {
		return fmt.Errorf("%d of 30 admitted", admitted)
	}
	if s := c.state(); s != "closed" {
		return fmt.Errorf("after three good probes it is %s", s)
	}
	return nil
}

func lateCompletions(create func(circuitSpec) circuit) error {
	c := create(threeProbes())
	_, late := c.admits(3)
	if err := c.trip(3); err != nil {
		return err
	}
	cases.Pause(2 * openDelay)
	first, probes := c.admits(1)
	late[0].finish(errBroken)
	if s := c.state(); s != "half-open" {
		return fmt.Errorf("a late failure makes it %s", s)
	}
	finishAll(late[1:])
	if s := c.state(); s != "half-open" {
		return fmt.Errorf("late successes make it %s", s)
	}
	more, rest := c.admits(10)
	finishAll(append(probes, rest...))
	if first+more != 3 {
		return fmt.Errorf("two late successes give %d probes instead of 3", first+more)
	}
	return nil
}

func lateSuccess(create func(circuitSpec) circuit) error {
	c := create(oneProbe())
	_, late := c.admits(2)
	if err := c.trip(1); err != nil {
		return err
	}
	late[0].finish(nil)
	if s := c.state(); s != "open" {
		return fmt.Errorf("a late success while open makes it %s", s)
	}
	cases.Pause(2 * openDelay)
	_, probe := c.admits(1)
	late[1].finish(nil)
	s := c.state()
	finishAll(probe)
	if s != "half-open" {
		return fmt.Errorf("a late success while half-open makes it %s", s)
	}
	return nil
}

func slidingWindow(create func(circuitSpec) circuit) error {
	const window = 400 * time.Millisecond
	spec := circuitSpec{failures: 6, window: window, delay: time.Hour, probes: 1}
	six := func(before, between time.Duration) string {
		c := create(spec)
		cases.Pause(before)
		for i := range 6 {
			if i == 3 {
				cases.Pause(between)
			}
			_ = c.fail()
		}
		return c.state()
	}
	if s := six(window*8/10, window*4/10); s != "open" {
		return errors.New("6 failures across an edge of the window leave it " + s)
	}
	if s := six(0, window*3/2); s != "closed" {
		return errors.New("3 failures, a window and a half, and 3 more make it " + s)
	}
	return nil
}

func slowFailures(create func(circuitSpec) circuit) error {
	const window = 100 * time.Millisecond
	c := create(circuitSpec{failures: 6, window: window, delay: time.Hour, probes: 1})
	for range 3 {
		admitted, running := c.admits(10)
		cases.Pause(window * 3 / 2)
		var all sync.WaitGroup
		for _, f := range running {
			all.Go(func() { f.finish(errBroken) })
		}
		all.Wait()
		if admitted > 0 && c.state() == "open" {
			return nil
		}
	}
	return fmt.Errorf("30 failures of %s each, window %s: still %s", cases.Millis(window*3/2), cases.Millis(window), c.state())
}

// recovers reports whether a call gets through in the end.
func (c circuit) recovers() error {
	if cases.Eventually(10*openDelay, func() bool { return c.succeed() == nil }) {
		return nil
	}
	return fmt.Errorf("after a second it still rejects, %s", c.state())
}

func panickingProbe(create func(circuitSpec) circuit) error {
	c := create(oneProbe())
	if err := c.trip(1); err != nil {
		return err
	}
	cases.Pause(2 * openDelay)
	if cases.Caught(func() { _ = c.do(context.Background(), func() error { panic("probe") }) }) == nil {
		return errors.New("the panic did not reach the caller")
	}
	return c.recovers()
}

func exitingProbe(create func(circuitSpec) circuit) error {
	c := create(oneProbe())
	if err := c.trip(1); err != nil {
		return err
	}
	cases.Pause(2 * openDelay)
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		_ = c.do(context.Background(), func() error { runtime.Goexit(); return nil })
	}()
	select {
	case <-exited:
	case <-time.After(time.Second):
		return errors.New("the caller is still blocked after a second")
	}
	return c.recovers()
}

func panicIsFailure(create func(circuitSpec) circuit) error {
	c := create(circuitSpec{failures: 1, delay: time.Hour, probes: 1})
	_ = cases.Caught(func() { _ = c.do(context.Background(), func() error { panic("operation") }) })
	if s := c.state(); s != "open" {
		return errors.New("a panic leaves it " + s)
	}
	return nil
}

func cancelIsNoFailure(create func(circuitSpec) circuit) error {
	c := create(circuitSpec{failures: 1, delay: time.Hour, probes: 1})
	cancelled, cancel := context.WithCancel(context.Background())
	_ = c.do(cancelled, func() error { cancel(); return cancelled.Err() })
	if s := c.state(); s != "closed" {
		return errors.New("a cancel by the caller makes it " + s)
	}
	expired, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	_ = c.do(expired, func() error { <-expired.Done(); return expired.Err() })
	if s := c.state(); s != "open" {
		return errors.New("a deadline that ran out leaves it " + s)
	}
	return nil
}

func hookReads(create func(circuitSpec) circuit) error {
	var read atomic.Int64
	c := create(circuitSpec{failures: 1, delay: openDelay, probes: 1, onChange: func(b circuit, _ func() uint) {
		if b.state() != "" {
			read.Add(1)
		}
	}})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = c.fail()
		cases.Pause(2 * openDelay)
		_ = c.succeed()
	}()
	select {
	case <-done:
	case <-time.After(2 * time.Second):
		return errors.New("deadlock")
	}
	if read.Load() != 3 {
		return fmt.Errorf("the hook ran %d times, not 3", read.Load())
	}
	return nil
}

func hungProbe(create func(circuitSpec) circuit) error {
	c := create(circuitSpec{failures: 1, delay: openDelay, probes: 1, lease: 2 * openDelay})
	if err := c.trip(1); err != nil {
		return err
	}
	cases.Pause(2 * openDelay)
	_, hung := c.admits(1)
	defer finishAll(hung)
	return c.recovers()
}

// eventRace hands each event to another goroutine, such as a log, while late results still come in.
func eventRace(create func(circuitSpec) circuit) error {
	for _, window := range []time.Duration{0, time.Second} {
		for range 20 {
			var all sync.WaitGroup
			c := create(circuitSpec{failures: 2, window: window, delay: time.Millisecond, probes: 1, onChange: func(_ circuit, read func() uint) {
				all.Go(func() { _ = read() })
			}})
			_, late := c.admits(4)
			_, _ = c.fail(), c.fail()
			for _, f := range late {
				all.Go(func() { f.finish(errBroken) })
			}
			cases.Pause(2 * time.Millisecond)
			_ = c.succeed()
			all.Wait()
		}
	}
	return nil // what could be wrong is found by the race detector
}
