package saga

import (
	"iter"
	"sync/atomic"
)

// Stats counts what this runner has done since it was made. Other runners of the store count their own; List tells what
// the store holds.
type Stats struct {
	// Active is how many instances this runner works on now.
	Active int64
	// Unknown is how many unfinished instances there were that this runner has no definition for, when it last looked,
	// which it does once a Lease; it counts to 1000.
	Unknown int64
	// Started counts the instances created by Start.
	Started int64
	// Completed, Compensated and Stuck count the instances that ended so, or got stuck, in this runner's hands.
	Completed, Compensated, Stuck int64
	// Attempts counts the runs of Do and Undo, Failures those that failed, Rejections those that were refused locally.
	Attempts, Failures, Rejections int64
	// Lost counts the instances lost to another owner because the lease was not renewed in time.
	Lost int64
	// StoreErrors counts the failed calls of the store.
	StoreErrors int64
	// Store is what the store held when this runner last looked. It is shared: every runner of the store sees about the same.
	Store Backlog
}

type counters struct {
	active, unknown, started, completed, compensated, stuck atomic.Int64
	attempts, failures, rejections, lost, storeErrors       atomic.Int64
}

func (c *counters) count(in Instance, e Event) {
	switch e.Outcome {
	case Failed:
		c.failures.Add(1)
	case Rejected:
		c.rejections.Add(1)
	}
	switch in.Status {
	case Completed:
		c.completed.Add(1)
	case Compensated:
		c.compensated.Add(1)
	case Stuck:
		c.stuck.Add(1)
	}
}

// Stats is a snapshot of the counters; taking it never slows the runner.
func (r *Runner) Stats() Stats {
	r.observed.Store(true)
	c := &r.stats
	st := Stats{
		Active: c.active.Load(), Unknown: c.unknown.Load(), Started: c.started.Load(),
		Completed: c.completed.Load(), Compensated: c.compensated.Load(), Stuck: c.stuck.Load(),
		Attempts: c.attempts.Load(), Failures: c.failures.Load(), Rejections: c.rejections.Load(),
		Lost: c.lost.Load(), StoreErrors: c.storeErrors.Load(),
	}
	if b := r.backlog.Load(); b != nil {
		st.Store = *b
	}
	return st
}

// Describe returns "saga", the name and the current Config, for consoles and telemetry.
func (r *Runner) Describe() (kind, name string, config any) {
	cfg := r.Config()
	return "saga", cfg.Name, cfg
}

// Metrics yields the Stats under snake_case names; counters end in _total. At the end come, for each function of the definitions,
// its attempts, failures and time, with the labels saga, step and direction: their number is bounded by the definitions.
func (r *Runner) Metrics() iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) {
		s := r.Stats()
		_ = yield("active", float64(s.Active)) &&
			yield("running", float64(s.Store.Running)) &&
			yield("waiting", float64(s.Store.Waiting)) &&
			yield("stuck_instances", float64(s.Store.Stuck)) &&
			yield("oldest_age_seconds", s.Store.OldestAge.Seconds()) &&
			yield("unknown", float64(s.Unknown)) &&
			yield("started_total", float64(s.Started)) &&
			yield("completed_total", float64(s.Completed)) &&
			yield("compensated_total", float64(s.Compensated)) &&
			yield("stuck_total", float64(s.Stuck)) &&
			yield("attempts_total", float64(s.Attempts)) &&
			yield("failures_total", float64(s.Failures)) &&
			yield("rejections_total", float64(s.Rejections)) &&
			yield("lost_total", float64(s.Lost)) &&
			yield("store_errors_total", float64(s.StoreErrors)) &&
			r.steps.metrics(yield)
	}
}
