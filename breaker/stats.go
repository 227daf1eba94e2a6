package breaker

import "iter"

// Stats is a snapshot. Calls, Successes, Failures, Slow, Ignored, Rejected and Opened count since New; a result that came
// after its generation had ended is not counted.
type Stats struct {
	State          State // 0 closed, 1 open, 2 half-open
	Calls          int64 // results judged: successes and failures
	Successes      int64 // calls judged as successes
	Failures       int64 // calls judged as failures
	Slow           int64 // calls, successful or not, that took SlowCall or longer
	Ignored        int64 // calls whose outcome was Ignored
	Rejected       int64 // calls refused; under "metrics_only", those that would have been
	Opened         int64 // transitions to open
	WindowCalls    int   // calls in the window now
	WindowFailures int   // how many calls in the window failed
	WindowSlow     int   // how many calls in the window were slow
	Overdue        int   // calls under way, past SlowCall already
}

// Stats returns the numbers of now. It is cheap and never slows a call; fields are read one after the other.
func (b *Breaker) Stats() Stats {
	b.mu.Lock()
	s, calls := b.state.Load(), b.retired
	b.mu.Unlock()
	stats := Stats{
		State:    b.State(),
		Failures: b.failed.Load(),
		Slow:     b.slow.Load(),
		Ignored:  b.ignored.Load(),
		Rejected: b.rejected.Load(),
		Opened:   b.opened.Load(),
	}
	if w := s.window; w != nil {
		calls += w.total()
		now := b.now()
		t := w.tally(now)
		stats.WindowCalls, stats.WindowFailures, stats.WindowSlow = int(t.calls), int(t.failures), int(t.slow)
		if w.flight != nil {
			stats.Overdue = int(w.flight.overdue(now))
		}
	}
	stats.Calls = calls
	stats.Successes = max(0, calls-stats.Failures)
	return stats
}

// Describe returns the kind "breaker", the name and the Config, for consoles and telemetry.
func (b *Breaker) Describe() (kind, name string, config any) {
	cfg := b.Config()
	return "breaker", cfg.Name, cfg
}

// Metrics yields the numbers of Stats by name. state is 0 closed, 1 open, 2 half-open.
func (b *Breaker) Metrics() iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) {
		s := b.Stats()
		_ = yield("state", float64(s.State)) &&
			yield("successes_total", float64(s.Successes)) &&
			yield("failures_total", float64(s.Failures)) &&
			yield("slow_total", float64(s.Slow)) &&
			yield("ignored_total", float64(s.Ignored)) &&
			yield("rejected_total", float64(s.Rejected)) &&
			yield("opened_total", float64(s.Opened)) &&
			yield("window_calls", float64(s.WindowCalls)) &&
			yield("window_failures", float64(s.WindowFailures)) &&
			yield("window_slow", float64(s.WindowSlow)) &&
			yield("overdue", float64(s.Overdue))
	}
}
