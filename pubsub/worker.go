package pubsub

import (
	"context"
	"errors"
	"maps"
	"runtime/debug"
	"strconv"
	"time"
)

// worker handles ready items one after the other until the consumer drains or there are too many workers.
func (c *Consumer) worker() {
	counted := true
	defer func() {
		if !counted {
			return
		}
		c.mu.Lock() // the handler ended this goroutine: another takes its place
		c.workers--
		c.employ(c.queue.ready.len())
		c.mu.Unlock()
	}()
	for it := c.next(); it != nil; it = c.next() {
		c.handle(it)
	}
	counted = false
}

// next waits for an item to handle; nil means that the worker must end, and has been counted out.
func (c *Consumer) next() *item {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		s := c.sub.Load()
		if c.draining || c.workers > s.Concurrency {
			c.workers--
			c.employ(c.queue.ready.len()) // pass on the signal that may have come with the wake-up
			return nil
		}
		now, dropped := time.Now(), c.queue.dropped
		it := c.queue.start(now)
		if c.queue.dropped != dropped { // which may have made others ready, or room
			c.employ(c.queue.ready.len())
			c.space.Broadcast()
		}
		if it == nil {
			c.idle++
			c.work.Wait()
			continue
		}
		it.overdue = time.Time{}
		if s.HandleTimeout > 0 {
			it.overdue = now.Add(s.HandleTimeout)
		}
		return it
	}
}

// errGoexit is the failure of a handler that called runtime.Goexit, as t.FailNow does.
var errGoexit = errors.New("handler ended its goroutine (runtime.Goexit)")

// handle makes one attempt at an item and gives its verdict, whatever the handler does.
func (c *Consumer) handle(it *item) {
	m := it.Message
	m.Attempt = it.attempt()
	s := c.sub.Load()
	c.recall(s, it, m.Attempt)
	err := errGoexit
	defer func() { c.conclude(it, c.judge(s, it, m, err)) }()
	if it.dead == nil {
		err = c.call(it, m)
	}
}

// recall finds out whether an item needs no attempt any more: because only the publish of its dead letter failed, or
// because it was delivered twice as often as it may be attempted. The broker also counts deliveries that were given
// back unhandled, so a count over MaxAttempts alone does not condemn a message; one that kills its process gets there.
func (c *Consumer) recall(s *Subscription, it *item, attempt int) {
	if it.dead != nil || attempt < 2 {
		return
	}
	c.mu.Lock()
	it.dead = c.failures[it.ID].dead
	c.mu.Unlock()
	if it.dead == nil && s.MaxAttempts > 0 && attempt > 2*s.MaxAttempts {
		it.dead = &death{reason: "attempts", attempts: attempt - 1}
	}
}

// call runs the handler and turns a panic into an error.
func (c *Consumer) call(it *item, m Message) (err error) {
	ctx := c.base
	if !it.overdue.IsZero() {
		d := &deadline{parent: ctx, at: it.overdue}
		defer d.finish()
		ctx = d
	}
	defer func() {
		if r := recover(); r != nil {
			err = &panicError{r, debug.Stack()}
		}
	}()
	return c.handler(ctx, m)
}

// judge turns the result of an attempt into a verdict. For Extend the item stays here, in backoff.
func (c *Consumer) judge(s *Subscription, it *item, m Message, err error) Verdict {
	switch {
	case it.dead != nil:
		return c.bury(s, it, m)
	case err == nil:
		return Verdict{Token: it.Token, Kind: Ack}
	}
	c.noteFailure(it, err)
	_, unfit := errors.AsType[*deadLetterError](err)
	switch {
	case unfit:
		it.dead = &death{reason: "handler", attempts: m.Attempt, err: err}
	case s.MaxAttempts > 0 && m.Attempt >= s.MaxAttempts:
		it.dead = &death{reason: "attempts", attempts: m.Attempt, err: err}
	}
	if it.dead != nil {
		return c.bury(s, it, m)
	}
	delay, asked := askedDelay(err)
	if !asked {
		delay = s.backoff(m.Attempt)
	}
	return c.again(s, it, m, delay, err)
}

// askedDelay is the delay that the handler's error asks for: by RetryAfter at any depth, or by a RetryAfter method of
// its own, such as that of a policy which refused the call.
func askedDelay(err error) (time.Duration, bool) {
	if asked, ok := errors.AsType[*retryAfterError](err); ok {
		return asked.after, true
	}
	if direct, ok := err.(interface{ RetryAfter() time.Duration }); ok {
		d := direct.RetryAfter()
		return d, d > 0
	}
	return 0, false
}

// again has an item tried again after delay: here if the backoff is local, otherwise by the broker.
func (c *Consumer) again(s *Subscription, it *item, m Message, delay time.Duration, err error) Verdict {
	c.bus.hooks.retry(Retried{Consumer: s.Name, Message: m, Delay: delay, Err: err})
	if c.local {
		return Verdict{Token: it.Token, Kind: Extend, Delay: delay}
	}
	return Verdict{Token: it.Token, Kind: Nack, Delay: delay}
}

// death is why a message becomes a dead letter. It outlives a publish that fails.
type death struct {
	reason   string
	attempts int
	err      error // the last failure; nil if it was not seen here
	publish  int   // failed publishes
}

// bury publishes the dead letter and acknowledges the message. When the publish fails, the message stays.
func (c *Consumer) bury(s *Subscription, it *item, m Message) Verdict {
	letter := c.letter(s, it, m)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.base), s.Lease)
	defer cancel()
	if err := publishError([]Message{letter}, c.bus.driver.Publish(ctx, []Message{letter})); err != nil {
		it.dead.publish++
		c.mu.Lock()
		c.counts.DeadLetterFailed++
		c.failures.note(it.ID, failure{dead: it.dead})
		c.mu.Unlock()
		return c.again(s, it, m, s.backoff(it.dead.publish), err)
	}
	c.mu.Lock()
	c.counts.DeadLettered++
	c.mu.Unlock()
	c.bus.hooks.deadLetter(DeadLettered{Consumer: s.Name, Message: letter, Attempts: it.dead.attempts, Err: it.dead.err})
	return Verdict{Token: it.Token, Kind: Ack}
}

// letter is the dead letter of m: the same message on another topic, with the story in its headers.
func (c *Consumer) letter(s *Subscription, it *item, m Message) Message {
	header := make(Header, len(m.Header)+6)
	maps.Copy(header, m.Header)
	last := "the attempts were used up without a verdict: a crash or a lost lease"
	if it.dead.err != nil {
		last = it.dead.err.Error()
	}
	c.mu.Lock()
	first := c.failures[m.ID].first
	c.mu.Unlock()
	if first == "" {
		first = headerText(last)
	}
	header[HeaderReason] = it.dead.reason
	header[HeaderAttempts] = strconv.Itoa(it.dead.attempts)
	header[HeaderFirstError] = first
	header[HeaderLastError] = headerText(last)
	header[HeaderTopic] = s.Topic
	header[HeaderGroup] = s.Group
	m.Topic, m.Header, m.Attempt = DeadLetterTopic(s.Topic, s.Group), header, 0
	return m
}

func (c *Consumer) noteFailure(it *item, err error) {
	text := headerText(err.Error())
	c.mu.Lock()
	c.counts.Failed++
	c.failures.note(it.ID, failure{first: text})
	c.mu.Unlock()
}

// conclude ends an attempt: the item leaves with its verdict, or goes into backoff.
func (c *Consumer) conclude(it *item, v Verdict) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if v.Kind == Ack {
		if it.dead == nil {
			c.counts.Handled++
		}
		delete(c.failures, it.ID)
	}
	if v.Kind == Extend && !it.lost && !c.draining {
		c.park(it, v.Delay)
	} else {
		c.release(it, v)
	}
	s := c.sub.Load()
	if c.queue.ready.len()+c.queue.running <= s.Concurrency {
		c.space.Broadcast()
	}
	if c.draining && c.queue.running == 0 {
		c.signalDrained()
	}
}

// park puts an item into local backoff; the attempt counts, unless only the dead letter failed.
func (c *Consumer) park(it *item, delay time.Duration) {
	if it.dead == nil {
		it.local++
	}
	c.queue.park(it)
	it.timer = time.AfterFunc(delay, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.draining && c.queue.due(it) {
			c.employ(1)
		}
	})
}

// release lets go of an item. A lost one is settled only with an Ack, which brokers take kindly: it may spare the
// redelivery, and means nothing if somebody else has the message.
func (c *Consumer) release(it *item, v Verdict) {
	c.queue.finish(it)
	if v.Kind == Extend { // the backoff would have been local, but a drain or a lost lease ends it
		v = Verdict{Token: it.Token, Kind: Nack}
	}
	if it.lost && v.Kind != Ack {
		return
	}
	c.settler.add(settlement{v, it, it.leaseUntil})
}
