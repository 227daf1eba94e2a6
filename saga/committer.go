package saga

import (
	"context"
	"time"
)

// maxBatch bounds how many changes one commit carries.
const maxBatch = 64

// change is a transition on its way to the store; a heartbeat has no reply.
type change struct {
	h     *hold
	t     Transition
	reply chan verdict
}

type verdict struct {
	recorded bool
	err      error
}

// commitLoop is the session's only writer: what arrives while a commit is under way shares the next one, and heartbeats
// cannot overtake or be overtaken by the changes of the same instance.
func (s *session) commitLoop(stop <-chan struct{}) {
	beat := time.NewTimer(s.lease / 4)
	defer beat.Stop()
	for {
		select {
		case c := <-s.commits:
			s.commit(s.gather(c))
		case <-beat.C:
			s.heartbeat()
			beat.Reset(s.lease / 4)
		case <-stop:
			return
		}
	}
}

// gather adds the changes that are waiting to be sent.
func (s *session) gather(first *change) []*change {
	batch := []*change{first}
	for len(batch) < maxBatch {
		select {
		case c := <-s.commits:
			batch = append(batch, c)
		default:
			return batch
		}
	}
	return batch
}

// commit writes a batch and answers each change. Where a batch fails, each of its changes is tried alone, so that one
// the store cannot take does not hold up the others.
func (s *session) commit(batch []*change) {
	err := s.write(batch)
	if err == nil {
		return
	}
	for _, c := range batch {
		if len(batch) > 1 {
			err = s.write([]*change{c})
		}
		if err != nil {
			s.r.trouble("Commit", err)
			c.answer(verdict{err: err})
		}
	}
}

// write makes one Commit and, unless it failed as a whole, acts on the result.
func (s *session) write(batch []*change) error {
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.base), s.lease)
	defer cancel()
	ts := make([]Transition, len(batch))
	for i, c := range batch {
		c.t.Token = c.h.in.Token
		ts[i] = c.t
	}
	recorded, err := s.r.store.Commit(ctx, ts)
	if err != nil {
		return err
	}
	for i, c := range batch {
		switch {
		case !recorded[i]:
			c.h.lose()
		case c.t.Hold > 0:
			c.h.renew(began, c.t.Hold)
		default:
			s.forget(c.h) // a heartbeat now would push back its due time
		}
		if recorded[i] && c.t.Next != nil {
			c.h.in.Token++
		}
		c.answer(verdict{recorded: recorded[i]})
	}
	return nil
}

func (c *change) answer(v verdict) {
	if c.reply != nil {
		c.reply <- v
	}
}

// heartbeat extends the leases that were not renewed by a change lately.
func (s *session) heartbeat() {
	var batch []*change
	s.mu.Lock()
	for h := range s.held {
		if h.age() >= s.lease/5 && !h.isLost() {
			batch = append(batch, &change{h: h, t: Transition{ID: h.in.ID, Hold: s.lease}})
		}
	}
	s.mu.Unlock()
	if len(batch) > 0 {
		s.commit(batch)
	}
}
