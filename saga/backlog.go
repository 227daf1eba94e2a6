package saga

import (
	"context"
	"time"
)

// maxBacklog is how many instances of a definition are looked at.
const maxBacklog = 1000

// Backlog is what the store held, of the definitions that a runner knows, when the runner last looked. It looks once a Lease, while it
// runs, and only if Stats or Metrics was called since the last time; it counts to 1000 for each definition. Before the first look it is
// zero.
type Backlog struct {
	// Running is how many unfinished instances some runner worked on, Waiting how many nobody did: they wait for an event, a time, a
	// child, their next attempt or a free slot.
	Running, Waiting int64
	// Stuck is how many instances were stuck, waiting for a person.
	Stuck int64
	// OldestAge is how long ago the oldest of those running and waiting was started, told by the clock of this node.
	OldestAge time.Duration
}

// lookAtBacklog fills in the Backlog if anybody wants to know.
func (s *session) lookAtBacklog(ctx context.Context) {
	if !s.r.observed.Swap(false) {
		return
	}
	var b Backlog
	var oldest time.Time
	seen := map[string]bool{}
	for _, ref := range s.r.known {
		if seen[ref.Name] {
			continue
		}
		seen[ref.Name] = true
		ins, err := s.r.store.List(ctx, Filter{Definition: ref.Name, Statuses: []Status{Running, Compensating, Stuck}, Limit: maxBacklog})
		if err != nil {
			if ctx.Err() == nil {
				s.r.trouble("List", err)
			}
			return
		}
		for i := range ins {
			b.count(&ins[i])
			if ins[i].Status.Active() && (oldest.IsZero() || ins[i].Created.Before(oldest)) {
				oldest = ins[i].Created
			}
		}
	}
	if !oldest.IsZero() {
		b.OldestAge = max(0, time.Since(oldest))
	}
	s.r.backlog.Store(&b)
}

func (b *Backlog) count(in *Instance) {
	switch {
	case in.Status == Stuck:
		b.Stuck++
	case in.Owner != "":
		b.Running++
	default:
		b.Waiting++
	}
}
