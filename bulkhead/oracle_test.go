package bulkhead_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/backstay-go/backstay/bulkhead"
)

// oracle is a bulkhead as the documentation has it, in the dumbest way: a list of calls that run and a list of those that wait.
type oracle struct {
	limit, queue     int
	running, waiting []call
	rejected         int64
}

type call struct {
	weight int
	cancel context.CancelFunc
	permit chan *bulkhead.Permit // filled when the bulkhead under test admits it
}

func (o *oracle) weight() (sum int) {
	for _, c := range o.running {
		sum += c.weight
	}
	return sum
}

func (o *oracle) enter(c call) {
	free := len(o.waiting) == 0 && o.weight()+c.weight <= o.limit
	if c.weight > o.limit || !free && len(o.waiting) >= o.queue {
		o.rejected++
		return
	}
	o.waiting = append(o.waiting, c)
}

// serve lets those run who are first in the queue and fit, or who have the bulkhead to themselves.
func (o *oracle) serve() {
	for len(o.waiting) > 0 && (len(o.running) == 0 || o.weight()+o.waiting[0].weight <= o.limit) {
		o.running, o.waiting = append(o.running, o.waiting[0]), o.waiting[1:]
	}
}

func (o *oracle) compare(s bulkhead.Stats) error {
	if s.Running != o.weight() || s.Waiting != len(o.waiting) || s.Rejected != o.rejected {
		return fmt.Errorf("%+v: the oracle has %d running, %d waiting, %d rejected", s, o.weight(), len(o.waiting), o.rejected)
	}
	for i, c := range o.running {
		if len(c.permit) != 1 {
			return fmt.Errorf("the call %d of those that run was not admitted", i)
		}
	}
	return nil
}

// step is one thing that happens; what a and b mean depends on it.
type step struct{ action, a, b int }

func play(steps []step) error {
	o := &oracle{limit: 3, queue: 4}
	b := bulkhead.New(bulkhead.Config{MaxConcurrent: o.limit, MaxQueue: o.queue})
	defer func() {
		for _, c := range o.waiting {
			c.cancel()
		}
		synctest.Wait()
	}()
	for i, s := range steps {
		switch {
		case s.action == 0:
			o.limit, o.queue = s.a, s.b
			if err := b.Reconfigure(bulkhead.Config{MaxConcurrent: o.limit, MaxQueue: o.queue}); err != nil {
				return err
			}
		case s.action == 1 && len(o.waiting) > 0:
			who := s.a % len(o.waiting)
			o.waiting[who].cancel()
			o.waiting = slices.Delete(o.waiting, who, who+1)
		case s.action <= 3 && len(o.running) > 0:
			who := s.a % len(o.running)
			(<-o.running[who].permit).Done(nil)
			o.running = slices.Delete(o.running, who, who+1)
		default:
			ctx, cancel := context.WithCancel(context.Background())
			c := call{weight: s.a, cancel: cancel, permit: make(chan *bulkhead.Permit, 1)}
			go func() {
				if p, err := b.AcquireN(ctx, c.weight); err == nil {
					c.permit <- &p
				}
			}()
			o.enter(c)
		}
		o.serve()
		synctest.Wait()
		if err := o.compare(b.Stats()); err != nil {
			return fmt.Errorf("step %d, %+v: %w", i, s, err)
		}
	}
	return nil
}

func TestAgainstANaiveBulkhead(t *testing.T) {
	steps := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) step {
		return step{rapid.IntRange(0, 7).Draw(t, "action"), rapid.IntRange(1, 6).Draw(t, "a"), rapid.IntRange(1, 6).Draw(t, "b")}
	}), 1, 200)
	rapid.Check(t, func(rt *rapid.T) {
		var err error
		drawn := steps.Draw(rt, "steps")
		synctest.Test(t, func(*testing.T) { err = play(drawn) })
		require.NoError(rt, err)
	})
}
