package breaker_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/backstay-go/backstay/breaker"
)

// oracle is a breaker as the documentation has it, in the dumbest way: a list of results and no concurrency.
type oracle struct {
	cfg       breaker.Config
	state     breaker.State
	results   []bool // true: failed
	streak    int
	openUntil time.Duration
	issued    int
	succeeded int
	gen       int
}

func (o *oracle) become(state breaker.State, now time.Duration) {
	o.state, o.results, o.streak, o.issued, o.succeeded = state, nil, 0, 0, 0
	o.gen++
	if state == breaker.Open {
		o.openUntil = now + o.cfg.OpenDelay
	}
}

func (o *oracle) acquire(now time.Duration) bool {
	if o.state == breaker.Open && now >= o.openUntil {
		o.become(breaker.HalfOpen, now)
	}
	switch {
	case o.state == breaker.Closed:
		return true
	case o.state == breaker.HalfOpen && o.issued < o.cfg.Probes:
		o.issued++
		return true
	default:
		return false
	}
}

func (o *oracle) done(gen int, failed bool, now time.Duration) {
	if gen != o.gen {
		return
	}
	if o.state == breaker.HalfOpen {
		if failed {
			o.become(breaker.Open, now)
		} else if o.succeeded++; o.succeeded == o.cfg.Probes {
			o.become(breaker.Closed, now)
		}
		return
	}
	o.results = append(o.results, failed)
	if len(o.results) > o.cfg.Window {
		o.results = o.results[1:]
	}
	o.streak++
	failures := 0
	for _, f := range o.results {
		if f {
			failures++
		}
	}
	if !failed {
		o.streak = 0
	}
	if len(o.results) >= o.cfg.MinimumCalls && float64(failures) >= o.cfg.FailureRatio*float64(len(o.results)) ||
		o.cfg.ConsecutiveFailures > 0 && o.streak >= o.cfg.ConsecutiveFailures {
		o.become(breaker.Open, now)
	}
}

type held struct {
	permit *breaker.Permit
	gen    int
}

func TestItBehavesAsTheOracle(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		window := rapid.IntRange(1, 12).Draw(rt, "window")
		cfg := breaker.Config{
			Window:              window,
			MinimumCalls:        rapid.IntRange(1, window).Draw(rt, "minimum"),
			FailureRatio:        rapid.SampledFrom([]float64{0.2, 0.5, 1}).Draw(rt, "ratio"),
			ConsecutiveFailures: rapid.SampledFrom([]int{-1, 2, 4}).Draw(rt, "consecutive"),
			OpenDelay:           time.Second,
			Probes:              rapid.IntRange(1, 3).Draw(rt, "probes"),
			ProbeTimeout:        -1,
		}
		steps := rapid.SliceOfN(rapid.IntRange(0, 9), 1, 300).Draw(rt, "steps")
		synctest.Test(t, func(*testing.T) {
			b, o := breaker.New(cfg), &oracle{cfg: cfg}
			start := time.Now()
			var out []held
			for i, step := range steps {
				now := time.Since(start)
				switch {
				case step <= 4:
					p, err := b.Acquire(context.Background())
					require.Equal(rt, o.acquire(now), err == nil, "step %d: admitted", i)
					if err == nil {
						out = append(out, held{&p, o.gen})
					}
				case step <= 8 && len(out) > 0:
					h := out[0]
					out = out[1:]
					failed := step <= 6
					if failed {
						h.permit.Done(errBroken)
					} else {
						h.permit.Done(nil)
					}
					o.done(h.gen, failed, now)
				case step == 9:
					time.Sleep(400 * time.Millisecond)
				}
				want := o.state
				if want == breaker.Open && time.Since(start) >= o.openUntil {
					want = breaker.HalfOpen
				}
				require.Equal(rt, want, b.State(), "step %d", i)
			}
		})
	})
}
