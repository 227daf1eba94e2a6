package pubsub

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// redrivenFor returns the group that m was redriven for. A message that has become a dead letter since keeps the
// header, by which a broker tells it from its first dead letter, and is for everybody who reads dead letters.
func redrivenFor(m *Message) (group string, ok bool) {
	if len(m.Header) == 0 {
		return "", false
	}
	redrive, ok := m.Header[HeaderRedrive]
	if !ok {
		return "", false
	}
	if _, dead := m.Header[HeaderReason]; dead {
		return "", false
	}
	group, _, _ = strings.Cut(redrive, "/")
	return group, true
}

func isRedriven(m *Message) bool {
	_, ok := redrivenFor(m)
	return ok
}

// foresee finds out whether an item needs no attempt: because it was redriven for another group, because only the
// publish of its dead letter failed, because it was delivered twice as often as it may be attempted, or because its key
// is held. The broker also counts deliveries that were given back unhandled, so a count over MaxAttempts alone does not
// condemn a message; one that kills its process gets there.
func (c *Consumer) foresee(s *Subscription, it *item) {
	group, redriven := redrivenFor(&it.Message)
	if redriven && group != s.Group {
		it.skip = true
		return
	}
	attempt := it.attempt()
	if it.dead == nil && attempt > 1 {
		if d := c.failures[DedupID(it.Message)].dead; d != nil {
			known := *d // a duplicate may have it too
			it.dead = &known
		}
		if it.dead == nil && s.MaxAttempts > 0 && attempt > 2*s.MaxAttempts {
			it.dead = &death{reason: "attempts", attempts: attempt - 1}
		}
	}
	if it.dead == nil && s.HoldKey && !redriven && c.queue.isHeld(it) {
		it.dead = &death{reason: reasonHeld}
	}
}

// judge turns the result of an attempt into verdicts. For Extend the item stays here, in backoff.
func (c *Consumer) judge(w *hand, err error) {
	s := c.sub.Load()
	each, _ := err.(BatchErrors)
	if !c.batched || len(each) != len(w.live) {
		each = nil
	}
	for i, it := range w.live {
		if each != nil {
			err = each[i]
		}
		if err == nil {
			it.verdict, it.delay = Ack, 0
		} else {
			c.fail(s, it, err)
		}
	}
	if len(w.items) == len(w.live) && err == nil && each == nil {
		return
	}
	var dead []*item
	for _, it := range w.items {
		switch {
		case it.skip:
			it.verdict, it.delay = Ack, 0
		case it.dead != nil:
			dead = append(dead, it)
		}
	}
	if len(dead) > 0 {
		c.bury(s, dead)
	}
}

// fail finds the verdict on a failed attempt: another one, or the end.
func (c *Consumer) fail(s *Subscription, it *item, err error) {
	if rejected(err) {
		c.reject(s, it, err)
		return
	}
	c.noteFailure(it, err)
	attempt := it.attempt()
	_, unfit := errors.AsType[*deadLetterError](err)
	switch {
	case unfit:
		it.dead = &death{reason: "handler", attempts: attempt, err: err}
		return
	case s.MaxAttempts > 0 && attempt >= s.MaxAttempts:
		it.dead = &death{reason: "attempts", attempts: attempt, err: err}
		return
	}
	delay, asked := askedDelay(err)
	if !asked {
		delay = s.backoff(attempt)
	}
	c.again(s, it, delay, err)
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
func (c *Consumer) again(s *Subscription, it *item, delay time.Duration, err error) {
	c.bus.hooks.retry(Retried{Consumer: s.Name, Message: it.message(), Delay: delay, Err: err})
	it.verdict, it.delay = Nack, delay
	if c.local {
		it.verdict = Extend
	}
}

func (c *Consumer) noteFailure(it *item, err error) {
	text := headerText(err.Error())
	c.mu.Lock()
	c.counts.Failed++
	c.failures.note(DedupID(it.Message), failure{first: text})
	c.mu.Unlock()
}

// death is why a message becomes a dead letter. It outlives a publish that fails.
type death struct {
	reason   string
	attempts int
	err      error // the last failure; nil if it was not seen here
	publish  int   // failed publishes
}

// reasonHeld is the reason of a message whose key is held.
const reasonHeld = "held"

// text says what the message died of.
func (d *death) text() string {
	switch {
	case d.err != nil:
		return d.err.Error()
	case d.reason == reasonHeld:
		return "not attempted: an earlier message of its key is a dead letter"
	}
	return "the attempts were used up without a verdict: a crash or a lost lease"
}

// bury publishes the dead letters of items and has them acknowledged. An item whose publish fails stays.
func (c *Consumer) bury(s *Subscription, items []*item) {
	items = c.hold(s, items)
	letters := make([]Message, len(items))
	for i, it := range items {
		letters[i] = c.letter(s, it)
	}
	failed := c.post(s, letters)
	for i, it := range items {
		if err := failed[i]; err != nil {
			c.buryAgain(s, it, err)
			continue
		}
		c.mu.Lock()
		if s.Temporary {
			c.counts.Dropped++
		} else {
			c.counts.DeadLettered++
		}
		c.mu.Unlock()
		it.verdict, it.delay = Ack, 0
		c.bus.hooks.deadLetter(DeadLettered{Consumer: s.Name, Message: letters[i], Attempts: it.dead.attempts, Err: it.dead.err})
	}
}

// post publishes dead letters and returns the failures by index. A temporary group has nowhere to publish them to.
func (c *Consumer) post(s *Subscription, letters []Message) map[int]error {
	if s.Temporary || len(letters) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.base), s.Lease)
	defer cancel()
	err := publishError(letters, c.bus.sendApart(ctx, slices.Clone(letters)))
	pe, ok := errors.AsType[*PublishError](err)
	if !ok {
		return nil
	}
	failed := make(map[int]error, len(pe.Failed))
	for _, f := range pe.Failed {
		failed[f.Index] = f.Err
	}
	return failed
}

// buryAgain keeps an item whose dead letter was not accepted, to publish it later.
func (c *Consumer) buryAgain(s *Subscription, it *item, err error) {
	it.dead.publish++
	c.mu.Lock()
	c.counts.DeadLetterFailed++
	c.remember(it)
	c.mu.Unlock()
	c.again(s, it, s.backoff(it.dead.publish), err)
}

// remember keeps the item's death in case the message comes again: its handler has said its word. A hold is over by
// then, in a lane begun anew.
func (c *Consumer) remember(it *item) {
	if it.dead.reason != reasonHeld {
		known := *it.dead
		c.failures.note(DedupID(it.Message), failure{dead: &known})
	}
}

// letter is the dead letter of an item: the same message on another topic, with the story in its headers.
func (c *Consumer) letter(s *Subscription, it *item) Message {
	m := it.Message
	header := make(Header, len(m.Header)+6)
	maps.Copy(header, m.Header)
	last := headerText(it.dead.text())
	c.mu.Lock()
	first := c.failures[DedupID(m)].first
	c.mu.Unlock()
	if first == "" {
		first = last
	}
	header[HeaderReason] = it.dead.reason
	header[HeaderAttempts] = strconv.Itoa(it.dead.attempts)
	header[HeaderFirstError] = first
	header[HeaderLastError] = last
	header[HeaderTopic] = s.Topic
	header[HeaderGroup] = s.Group
	m.Topic, m.Header, m.Attempt, m.DeliverAt = DeadLetterTopic(s.Topic, s.Group), header, 0, time.Time{}
	return m
}
