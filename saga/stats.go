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
	c := &r.stats
	return Stats{
		Active: c.active.Load(), Unknown: c.unknown.Load(), Started: c.started.Load(),
		Completed: c.completed.Load(), Compensated: c.compensated.Load(), Stuck: c.stuck.Load(),
		Attempts: c.attempts.Load(), Failures: c.failures.Load(), Rejections: c.rejections.Load(),
		Lost: c.lost.Load(), StoreErrors: c.storeErrors.Load(),
	}
}

// Describe returns "saga", the name and the current Config, for consoles and telemetry.
func (r *Runner) Describe() (kind, name string, config any) {
	cfg := r.Config()
	return "saga", cfg.Name, cfg
}

// Metrics yields the Stats under snake_case names; counters end in _total.
func (r *Runner) Metrics() iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) {
		s := r.Stats()
		for _, m := range []struct {
			name  string
			value int64
		}{
			{"active", s.Active}, {"unknown", s.Unknown}, {"started_total", s.Started},
			{"completed_total", s.Completed}, {"compensated_total", s.Compensated}, {"stuck_total", s.Stuck},
			{"attempts_total", s.Attempts}, {"failures_total", s.Failures}, {"rejections_total", s.Rejections},
			{"lost_total", s.Lost}, {"store_errors_total", s.StoreErrors},
		} {
			if !yield(m.name, float64(m.value)) {
				return
			}
		}
	}
}
