package saga

import (
	"time"
)

// maxBatch bounds how many changes one commit carries.
const maxBatch = 64

// change is a transition on its way to the store.
type change struct {
	h     *hold // nil for a heartbeat's turn
	t     Transition
	next  Progress
	event Event
	more  []Transition // that go with it: news for the parent
	fresh bool         // the event ended a moment ago
	reply chan verdict // made when it has to wait for another's commit
}

// verdict is what became of a change; lead hands its sender the next turn instead.
type verdict struct {
	recorded, lead bool
	err            error
}

// committer makes one commit at a time, on the goroutine of whoever brings the first change: what arrives while a commit is
// under way shares the next one, and heartbeats cannot overtake or be overtaken by the changes of the same instance.
type committer struct {
	busy  bool
	queue []*change
	batch []*change
	ts    []Transition
	ctx   *callCtx
}

// submit brings a change into the store, alone or with others.
func (s *session) submit(c *change) verdict {
	if v, lead := s.line(c); !lead {
		return v
	}
	v := s.commitBatch(s.take64(c), c)
	s.passOn()
	return v
}

// exclusively runs fn while no commit is under way.
func (s *session) exclusively(fn func()) {
	s.line(&change{})
	fn()
	s.passOn()
}

// line waits for the turn, or for somebody else to have made the change.
func (s *session) line(c *change) (v verdict, lead bool) {
	s.cmu.Lock()
	if !s.commits.busy {
		s.commits.busy = true
		s.cmu.Unlock()
		return verdict{}, true
	}
	if c.reply == nil {
		c.reply = make(chan verdict, 1)
	}
	c.fresh = false
	s.commits.queue = append(s.commits.queue, c)
	s.cmu.Unlock()
	v = <-c.reply
	return v, v.lead
}

// take64 is a batch of c and of the changes that wait.
func (s *session) take64(c *change) []*change {
	s.cmu.Lock()
	defer s.cmu.Unlock()
	q := &s.commits
	q.batch = append(q.batch[:0], c)
	n := 0
	for ; n < len(q.queue) && len(q.batch) < maxBatch && q.queue[n].h != nil; n++ {
		q.batch = append(q.batch, q.queue[n])
	}
	rest := copy(q.queue, q.queue[n:])
	clear(q.queue[rest:])
	q.queue = q.queue[:rest]
	return q.batch
}

// passOn gives the turn to whoever has waited longest.
func (s *session) passOn() {
	s.cmu.Lock()
	defer s.cmu.Unlock()
	q := &s.commits
	if len(q.queue) == 0 {
		q.busy = false
		return
	}
	next := q.queue[0]
	rest := copy(q.queue, q.queue[1:])
	q.queue[rest] = nil
	q.queue = q.queue[:rest]
	next.reply <- verdict{lead: true}
}

// commitBatch writes a batch, answers the changes of others in it and returns the verdict on own. Where a batch fails, each
// of its changes is tried alone, so that one the store cannot take does not hold up the others.
func (s *session) commitBatch(batch []*change, own *change) (v verdict) {
	tell := func(c *change, of verdict) {
		if c == own {
			v = of
		} else if c.reply != nil {
			c.reply <- of
		}
	}
	err := s.write(batch, tell)
	if err == nil {
		return v
	}
	for _, c := range batch {
		if len(batch) > 1 {
			err = s.write([]*change{c}, tell)
		}
		if err != nil {
			s.r.trouble("Commit", err)
			tell(c, verdict{err: err})
		}
	}
	return v
}

// write makes one Commit and, unless it failed as a whole, acts on the result.
func (s *session) write(batch []*change, tell func(*change, verdict)) error {
	began := begun(batch)
	ctx := s.commits.ctx
	if ctx == nil {
		ctx = &callCtx{base: s.detached}
	}
	ctx.deadline = began.Add(s.lease)
	defer func() { s.commits.ctx = ctx.end() }()
	ts := s.commits.ts[:0]
	for _, c := range batch {
		c.t.Token = c.h.in.Token
		ts = append(ts, c.t)
	}
	for _, c := range batch {
		ts = append(ts, c.more...)
	}
	s.commits.ts = ts
	recorded, err := s.r.store.Commit(ctx, ts)
	clear(ts)
	if err != nil {
		return err
	}
	for i, c := range batch {
		switch {
		case !recorded[i]:
			c.h.lose()
		case c.t.Hold > 0:
			c.h.renew(began)
		default:
			s.forget(c.h) // a heartbeat now would push back its due time
		}
		if recorded[i] && c.t.Next != nil {
			c.h.in.Token++
		}
		tell(c, verdict{recorded: recorded[i]})
	}
	return nil
}

// begun is the present, which the clock need not be asked for if a change comes straight from its attempt.
func begun(batch []*change) time.Time {
	c := batch[0]
	fresh := c.fresh && len(batch) == 1
	c.fresh = false
	if fresh {
		return c.event.Ended
	}
	return time.Now()
}

// beatLoop extends the leases that were not renewed by a change lately.
func (s *session) beatLoop(stop <-chan struct{}) {
	beat := time.NewTicker(s.lease / 4)
	defer beat.Stop()
	for {
		select {
		case <-beat.C:
			s.exclusively(s.heartbeat)
		case <-stop:
			return
		}
	}
}

func (s *session) heartbeat() {
	var batch []*change
	s.mu.Lock()
	for h := range s.held {
		if h.stale(s.lease / 5) {
			batch = append(batch, &change{h: h, t: Transition{ID: h.in.ID, Hold: s.lease}})
		}
	}
	s.mu.Unlock()
	for len(batch) > 0 {
		n := min(len(batch), maxBatch)
		s.commitBatch(batch[:n], nil)
		batch = batch[n:]
	}
}

// watchFrom wakes the watch if a lease that began at t may end before it looks. The caller has s.mu.
func (s *session) watchFrom(t time.Time) {
	if end := t.Add(s.lease); s.watched.IsZero() || end.Before(s.watched) {
		s.watched = end
		select {
		case s.look <- struct{}{}:
		default:
		}
	}
}

// watchLoop loses the leases that were not renewed in time, whatever the store is doing.
func (s *session) watchLoop(stop <-chan struct{}) {
	t := time.NewTimer(s.lease)
	defer t.Stop()
	for {
		select {
		case <-s.look:
		case <-t.C:
			for _, h := range s.expired() {
				h.lose()
			}
		case <-stop:
			return
		}
		s.mu.Lock()
		next := s.watched
		s.mu.Unlock()
		if next.IsZero() {
			t.Stop()
		} else {
			t.Reset(time.Until(next))
		}
	}
}

// expired lists the holds whose lease has run out, and notes when the next one may.
func (s *session) expired() (list []*hold) {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watched = time.Time{}
	for h := range s.held {
		end := h.expiry()
		switch {
		case !now.Before(end):
			if !h.isLost() {
				list = append(list, h)
			}
		case s.watched.IsZero() || end.Before(s.watched):
			s.watched = end
		}
	}
	return list
}
