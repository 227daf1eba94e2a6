package breaker_test

import (
	"context"
	"fmt"
	"slices"
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
	out       []*held // the calls under way
	state     breaker.State
	results   []result
	streak    int
	openUntil time.Duration
	issued    int
	lastIssue time.Duration
	succeeded int
	gen       int
	calls     int64
	failures  int64
	slow      int64
}

type result struct {
	failed, slow bool
	part         int64 // the tenth of the time window that it ended in
}

func (o *oracle) become(state breaker.State, now time.Duration) {
	o.state, o.results, o.streak, o.issued, o.succeeded = state, nil, 0, 0, 0
	o.gen++
	if state == breaker.Open {
		o.openUntil = now + o.cfg.OpenDelay
		if o.cfg.Mode == "force_open" {
			o.openUntil = 1 << 62
		}
	}
}

// acquire reports whether a call runs, and whether it is judged.
func (o *oracle) acquire(now time.Duration) (runs, judged bool) {
	if o.state == breaker.Open && now >= o.openUntil {
		o.become(breaker.HalfOpen, now)
	}
	if o.state == breaker.Closed && o.overdue(now) > 0 && o.due(now) {
		o.become(breaker.Open, now)
	}
	if o.state == breaker.Closed {
		return true, true
	}
	if o.state == breaker.HalfOpen && o.issued == o.cfg.Probes && o.cfg.ProbeTimeout > 0 && now-o.lastIssue >= o.cfg.ProbeTimeout {
		o.gen++
		o.issued = o.succeeded
	}
	if o.state == breaker.HalfOpen && o.issued < o.cfg.Probes {
		o.issued++
		o.lastIssue = now
		return true, true
	}
	return o.cfg.Mode == "metrics_only", false
}

func (o *oracle) part(now time.Duration) int64 {
	if o.cfg.WindowTime <= 0 {
		return 0
	}
	return int64(now / (o.cfg.WindowTime / 10))
}

// window is the results that are judged.
func (o *oracle) window(now time.Duration) []result {
	var in []result
	for _, r := range o.results {
		if o.part(now)-r.part < 10 {
			in = append(in, r)
		}
	}
	if o.cfg.WindowTime <= 0 && len(in) > o.cfg.Window {
		in = in[len(in)-o.cfg.Window:]
	}
	return in
}

func (o *oracle) done(h *held, outcome breaker.Outcome, now time.Duration) {
	if h.gen != o.gen || !h.judged {
		return
	}
	r := result{outcome == breaker.Failure, o.cfg.SlowCall > 0 && now-h.start >= o.cfg.SlowCall, o.part(now)}
	if outcome == breaker.Ignored {
		if o.state == breaker.HalfOpen {
			o.issued--
		}
		return
	}
	o.calls++
	if r.failed {
		o.failures++
	}
	if r.slow {
		o.slow++
	}
	if o.state == breaker.HalfOpen {
		if r.failed || r.slow {
			o.become(breaker.Open, now)
		} else if o.succeeded++; o.succeeded == o.cfg.Probes {
			o.become(breaker.Closed, now)
		}
		return
	}
	o.results = append(o.results, r)
	if o.streak++; !r.failed {
		o.streak = 0
	}
	if o.due(now) {
		o.become(breaker.Open, now)
	}
}

func (o *oracle) due(now time.Duration) bool {
	window := o.window(now)
	failures, slow := 0, 0
	for _, r := range window {
		if r.failed {
			failures++
		}
		if r.slow {
			slow++
		}
	}
	n := len(window)
	if o.cfg.Mode == "force_closed" {
		return false
	}
	late := o.overdue(now)
	return o.cfg.ConsecutiveFailures > 0 && o.streak >= o.cfg.ConsecutiveFailures ||
		n >= o.cfg.MinimumCalls && failures > 0 && float64(failures) >= o.cfg.FailureRatio*float64(n) ||
		n+late >= o.cfg.MinimumCalls && slow+late > 0 && float64(slow+late) >= o.cfg.SlowRatio*float64(n+late)
}

// overdue is how many calls under way are slow, told to a sixteenth of SlowCall.
func (o *oracle) overdue(now time.Duration) (n int) {
	tick := o.cfg.SlowCall / 16
	for _, h := range o.out {
		if o.cfg.SlowCall > 0 && h.gen == o.gen && h.judged && now/tick-h.start/tick > 16 {
			n++
		}
	}
	return n
}

// force gives the oracle another mode.
func (o *oracle) force(mode string, now time.Duration) {
	was := o.cfg.Mode
	o.cfg.Mode = mode
	switch {
	case mode == "force_closed" && o.state != breaker.Closed:
		o.become(breaker.Closed, now)
	case mode == "force_open" && was != mode:
		o.become(breaker.Open, now)
	case mode != "force_open" && was == "force_open":
		o.become(breaker.HalfOpen, now)
	}
	if o.state == breaker.Closed && o.due(now) {
		o.become(breaker.Open, now)
	}
}

type held struct {
	permit *breaker.Permit
	gen    int
	judged bool
	start  time.Duration
}

// drawConfig leaves out the growth of the delay, which is random.
func drawConfig(rt *rapid.T) breaker.Config {
	cfg := breaker.Config{
		Mode:                "auto",
		FailureRatio:        rapid.SampledFrom([]float64{0.2, 0.5, 1}).Draw(rt, "ratio"),
		ConsecutiveFailures: rapid.SampledFrom([]int{-1, 2, 4}).Draw(rt, "consecutive"),
		SlowRatio:           rapid.SampledFrom([]float64{0.4, 1}).Draw(rt, "slow ratio"),
		SlowCall:            rapid.SampledFrom([]time.Duration{-1, 1600 * time.Millisecond}).Draw(rt, "slow call"),
		OpenDelay:           time.Second,
		MaxOpenDelay:        -1,
		Probes:              rapid.IntRange(1, 3).Draw(rt, "probes"),
		ProbeTimeout:        rapid.SampledFrom([]time.Duration{-1, 3 * time.Second}).Draw(rt, "probe timeout"),
	}
	if rapid.Bool().Draw(rt, "timed") {
		cfg.WindowTime = rapid.SampledFrom([]time.Duration{time.Second, 10 * time.Second}).Draw(rt, "window time")
		cfg.MinimumCalls = rapid.IntRange(1, 12).Draw(rt, "minimum")
	} else {
		cfg.Window = rapid.IntRange(1, 12).Draw(rt, "window")
		cfg.MinimumCalls = rapid.IntRange(1, cfg.Window).Draw(rt, "minimum")
	}
	return cfg
}

// TestItBehavesAsTheOracle takes 100,000 steps: rapid runs 100 checks.
func TestItBehavesAsTheOracle(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		cfg := drawConfig(rt)
		steps := rapid.SliceOfN(rapid.IntRange(0, 999), 1000, 1000).Draw(rt, "steps")
		var err error
		synctest.Test(t, func(*testing.T) { err = play(cfg, steps) })
		require.NoError(rt, err) // not within the bubble, which rapid does not know
	})
}

// play does the same to a breaker and to the oracle, and returns the first difference.
func play(cfg breaker.Config, steps []int) error {
	b, o := breaker.New(cfg), &oracle{cfg: cfg}
	start := time.Now()
	for i, step := range steps {
		now := time.Since(start)
		switch {
		case step < 450:
			p, err := b.Acquire(context.Background())
			runs, judged := o.acquire(now)
			if runs != (err == nil) {
				return fmt.Errorf("step %d: admitted: want %v, got %w", i, runs, err)
			}
			if runs {
				o.out = append(o.out, &held{&p, o.gen, judged, now})
			}
		case step < 890 && len(o.out) > 0:
			pick := step % len(o.out)
			h := o.out[pick]
			o.out = slices.Delete(o.out, pick, pick+1)
			outcome := []breaker.Outcome{breaker.Success, breaker.Success, breaker.Success, breaker.Failure, breaker.Failure, breaker.Ignored}[step%6]
			h.permit.Done([]error{nil, errBroken, rejection{}}[outcome])
			o.done(h, outcome, now)
		case step >= 997:
			o.force([]string{"auto", "auto", "auto", "force_open", "force_closed", "metrics_only"}[i%6], now)
			if err := b.Reconfigure(o.cfg); err != nil {
				return err
			}
		default:
			time.Sleep(time.Duration(step) * 400 * time.Microsecond)
		}
		if want, got := o.stats(time.Since(start)), b.Stats(); !same(want, got) {
			return fmt.Errorf("step %d: want %+v, got %+v", i, want, got)
		}
	}
	return nil
}

// stats is what the oracle can tell of them.
func (o *oracle) stats(now time.Duration) breaker.Stats {
	s := breaker.Stats{State: o.state, Calls: o.calls, Failures: o.failures, Slow: o.slow}
	if o.state == breaker.Open && now >= o.openUntil {
		s.State = breaker.HalfOpen
	}
	if o.state == breaker.Closed {
		s.WindowCalls, s.Overdue = len(o.window(now)), o.overdue(now)
		if s.Overdue > 0 && o.due(now) {
			s.State = breaker.Open
		}
	}
	return s
}

func same(want, got breaker.Stats) bool {
	return want.State == got.State && want.Calls == got.Calls && want.Failures == got.Failures && want.Slow == got.Slow &&
		want.WindowCalls == got.WindowCalls && want.Overdue == got.Overdue
}
