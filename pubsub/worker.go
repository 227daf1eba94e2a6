package pubsub

import (
	"errors"
	"fmt"
	"runtime/debug"
	"time"
)

// Workers are leader and followers (Schmidt et al., Pattern-Oriented Software Architecture 2): one is in Receive, up to
// Concurrency handle messages, the rest wait. The one that returns from Receive handles a message itself and wakes
// another to take its place, so that a message is handed from the broker's goroutine to its handler's and no further.
//
// At most one worker is on its way at a time (stirring). It wakes the next if there is more to do when it arrives: slow
// handlers have all workers running in no time, and quick ones leave nothing for a second worker to be woken for.

// hand is what a worker holds between two looks at the queue. It is used again and again.
type hand struct {
	started bool          // the worker has looked at the queue before
	items   []*item       // taken together, to be handled
	live    []*item       // those of them that the handler gets
	begun   time.Duration // when they were taken
	unused  []deadline    // for the next calls: made together they cost less

	room     int // to be received
	returned bool
	received []Delivery    // the driver's
	now      time.Duration // of the return from Receive
	err      error
}

// task is what a worker does next.
type task int

const (
	taskEnd task = iota
	taskHandle
	taskReceive
	taskSettle
)

// worker handles and receives until the consumer drains or there are too many workers.
func (c *Consumer) worker() {
	w := &hand{}
	counted := true
	defer func() {
		if !counted {
			return
		}
		c.mu.Lock() // the handler ended this goroutine: another takes its place
		defer c.mu.Unlock()
		c.conclude(w)
		c.passVerdicts()
		c.workers--
		c.stir()
	}()
	for {
		switch c.next(w) {
		case taskHandle:
			c.handle(w)
		case taskReceive:
			c.receive(w)
		case taskSettle:
			c.settler.now()
		default:
			counted = false
			return
		}
	}
}

// next concludes what the worker has done and finds what it does next, waiting for it if need be. After taskEnd the
// worker has been counted out.
func (c *Consumer) next(w *hand) task {
	now := w.now
	if !w.returned {
		now = c.clock.now()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !w.started {
		w.started, c.stirring = true, false
	}
	if len(w.items) > 0 {
		c.pace.note(now - w.begun)
		c.conclude(w)
	}
	c.accept(w)
	for {
		s := c.sub.Load()
		switch {
		case c.draining || c.workers > s.Concurrency+1:
			c.workers--
			c.passVerdicts()
			c.stir()
			return taskEnd
		case !c.pace.quick() && c.settleHere():
			return taskSettle
		case c.take(w, s, now):
			c.share()
			return taskHandle
		case c.settleHere():
			return taskSettle
		case c.receivable(s):
			c.receiving = true
			w.room = 2*c.want(s) - c.active()
			return taskReceive
		default:
			c.idle++
			c.work.Wait()
			c.stirring = false
			now = c.clock.now()
		}
	}
}

// settleHere passes on the verdicts that have gathered, and reports whether the worker has to settle them itself.
func (c *Consumer) settleHere() bool {
	if len(c.verdicts) == 0 {
		return false
	}
	c.moveVerdicts()
	if !c.inline {
		c.settler.stir()
	}
	return c.inline
}

// moveVerdicts queues the verdicts that have gathered.
func (c *Consumer) moveVerdicts() {
	c.verdicts = c.settler.swap(c.verdicts)
}

// passVerdicts has the settler's goroutine settle them.
func (c *Consumer) passVerdicts() {
	if len(c.verdicts) > 0 {
		c.moveVerdicts()
		c.settler.stir()
	}
}

// stir sees to it that somebody does what there is to do. It is called after every change that makes something to do,
// and by each worker that turns to something itself.
func (c *Consumer) stir() {
	if c.stirring || c.draining {
		return
	}
	s := c.sub.Load()
	if c.startable(s) == 0 && !c.receivable(s) {
		return
	}
	switch {
	case c.idle > 0:
		c.idle--
		c.stirring = true
		c.work.Signal()
	case c.workers <= s.Concurrency:
		c.workers++
		c.stirring = true
		go c.worker()
	}
}

// wakeAll has all idle workers look around.
func (c *Consumer) wakeAll() {
	c.idle = 0
	c.work.Broadcast()
}

// batchSize is the number of messages that a handler gets at most.
func (c *Consumer) batchSize(s *Subscription) int {
	if c.batched {
		return s.BatchSize
	}
	return 1
}

// want is the number of messages that can be handled at a time.
func (c *Consumer) want(s *Subscription) int { return s.Concurrency * c.batchSize(s) }

// active is the number of messages that are being handled or could be.
func (c *Consumer) active() int { return c.queue.ready.len() + c.queue.running }

// receivable reports whether a worker is to call Receive. At most twice the messages are held that can be handled at a
// time, and no more are asked for before half of that is used up.
func (c *Consumer) receivable(s *Subscription) bool {
	if c.receiving || c.halted {
		return false
	}
	want := c.want(s)
	if c.active() > want || c.queue.crowded() {
		return false
	}
	c.backlogged = c.settler.waiting() >= 256+4*want
	return !c.backlogged
}

// startable is the number of messages that a worker can take now. It begins the wait for more if there are too few.
func (c *Consumer) startable(s *Subscription) int {
	n, size := c.queue.ready.len(), c.batchSize(s)
	switch {
	case n == 0 || c.busy >= s.Concurrency:
		return 0
	case n >= size || c.batchDue || s.BatchWait <= 0:
		return min(n, size)
	}
	c.gather(s.BatchWait)
	return 0
}

// gather makes the batch due after a while, once.
func (c *Consumer) gather(wait time.Duration) {
	if c.gathering != nil {
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(wait, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.gathering != timer { // a batch started just now
			return
		}
		c.batchDue = true
		c.stir()
	})
	c.gathering = timer
}

// stopGathering ends the wait; what comes next waits anew.
func (c *Consumer) stopGathering() {
	c.batchDue = false
	if c.gathering != nil {
		c.gathering.Stop()
		c.gathering = nil
	}
}

// take has the worker take what it can handle at once.
func (c *Consumer) take(w *hand, s *Subscription, now time.Duration) bool {
	n := c.startable(s)
	if n == 0 {
		return false
	}
	c.stopGathering()
	var overdue time.Duration
	if s.HandleTimeout > 0 {
		overdue = later(now, s.HandleTimeout)
	}
	for len(w.items) < n {
		it := c.queue.start(now)
		if it == nil {
			break
		}
		it.overdue = overdue
		c.foresee(s, it)
		w.items = append(w.items, it)
	}
	if len(w.items) == 0 {
		return false
	}
	c.busy++
	w.begun = now
	return true
}

// receive waits for deliveries.
func (c *Consumer) receive(w *hand) {
	deliveries, err := c.receiver.Receive(c.intake, w.room)
	w.received, w.now, w.err, w.returned = deliveries, c.clock.now(), err, true
}

// accept queues what the worker has received.
func (c *Consumer) accept(w *hand) {
	if !w.returned {
		return
	}
	s := c.sub.Load()
	leaseUntil := later(w.now, s.Lease-s.Lease/10) // the broker's clock started a little earlier
	for i := range w.received {
		it := c.queue.item(&w.received[i])
		it.leaseUntil = leaseUntil
		c.counts.Received++
		if it.Attempt > 1 {
			c.counts.Redelivered++
		}
		c.queue.add(it, w.now)
	}
	c.receiving = false
	switch {
	case w.err == nil:
	case c.intake.Err() != nil:
		c.halted = true
	default:
		c.intakeErr = fmt.Errorf("pubsub: consumer %q: receive: %w", s.Name, w.err)
		c.halted = true
		c.haltIntake()
	}
	if c.draining {
		c.quiet.Signal()
	}
	w.received, w.err, w.returned = nil, nil, false
}

// errGoexit is the failure of a handler that called runtime.Goexit, as t.FailNow does.
var errGoexit = errors.New("handler ended its goroutine (runtime.Goexit)")

// handle makes one attempt at what the worker has taken and finds the verdicts, whatever the handler does.
func (c *Consumer) handle(w *hand) {
	for _, it := range w.items {
		if it.dead == nil && !it.skip {
			w.live = append(w.live, it)
		}
	}
	err := errGoexit
	defer func() { c.judge(w, err) }()
	if len(w.live) > 0 {
		err = c.call(w)
	}
}

// call runs the handler and turns a panic into an error.
func (c *Consumer) call(w *hand) (err error) {
	ctx := c.base
	if overdue := w.live[0].overdue; overdue > 0 {
		d := w.deadline()
		d.parent, d.at = ctx, c.clock.time(overdue)
		defer d.finish()
		ctx = d
	}
	defer func() {
		if r := recover(); r != nil {
			err = &panicError{r, debug.Stack()}
		}
	}()
	return c.invoke(ctx, w.live)
}

// deadline is one that nobody knows yet. It is used once: a handler may keep its context.
func (w *hand) deadline() *deadline {
	if len(w.unused) == 0 {
		w.unused = make([]deadline, 16)
	}
	d := &w.unused[0]
	w.unused = w.unused[1:]
	return d
}

// conclude ends an attempt: the items leave with their verdicts, or go into backoff.
func (c *Consumer) conclude(w *hand) {
	if len(w.items) == 0 {
		return
	}
	c.pace.steps++
	s := c.sub.Load()
	c.busy--
	for _, it := range w.items {
		if it.verdict == Ack {
			c.count(s, it)
		}
		if it.verdict == Extend && !it.lost && !c.draining {
			c.park(it)
			continue
		}
		c.release(it)
	}
	clear(w.items)
	clear(w.live)
	w.items, w.live = w.items[:0], w.live[:0]
	if c.draining && c.busy == 0 {
		c.signalDrained()
	}
}

// count notes what an acknowledged item has come to.
func (c *Consumer) count(s *Subscription, it *item) {
	if len(c.failures) > 0 {
		delete(c.failures, DedupID(it.Message))
	}
	switch {
	case it.skip:
		c.counts.Skipped++
	case it.dead == nil:
		c.counts.Handled++
		if s.HoldKey && !it.lost && isRedriven(&it.Message) {
			c.queue.unhold(it)
		}
	}
}

// park puts an item into local backoff; the attempt counts, unless it was rejected or only the dead letter failed.
func (c *Consumer) park(it *item) {
	if it.dead == nil && !it.free {
		it.local++
	}
	it.free = false
	c.queue.park(it)
	it.timer = time.AfterFunc(it.delay, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.draining && c.queue.due(it) {
			c.stir()
		}
	})
}

// release lets go of an item and gathers what to tell the broker. A lost one is settled only with an Ack, which brokers
// take kindly: it may spare the redelivery, and means nothing if somebody else has the message.
func (c *Consumer) release(it *item) {
	c.queue.finish(it)
	v := Verdict{Token: it.Token, Kind: it.verdict, Delay: it.delay}
	if v.Kind == Extend { // the backoff would have been local, but a drain or a lost lease ends it
		v.Kind, v.Delay = Nack, 0
	}
	if !it.lost || v.Kind == Ack {
		c.verdicts = append(c.verdicts, settlement{v, nil, it.leaseUntil})
	}
	c.queue.recycle(it)
}
