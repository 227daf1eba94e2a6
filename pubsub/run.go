package pubsub

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Run receives messages and calls h for them until ctx is cancelled, Close is called, or the broker refuses for good.
// It blocks, and may be called once, or RunBatch instead; a second call returns ErrClosed.
//
// When asked to stop it drains: it receives no more, lets running handlers finish for DrainTimeout, gives the rest back
// to the broker, settles, leaves the group, and returns nil. The handlers' contexts carry the values of ctx and not its
// cancellation. When the grace is used up, they are cancelled and have a moment more to return; then Run gives back
// what they hold and returns ErrDrainTimeout, without waiting for a handler that ignores its context. An error that wraps
// ErrInDoubt says that the broker may not have heard of some acknowledgements, whose messages then come again. Other
// errors are those of the broker.
func (c *Consumer) Run(ctx context.Context, h Handler) error {
	if h == nil {
		return fmt.Errorf("pubsub: consumer %q: Run with a nil handler", c.Config().Name)
	}
	return c.run(ctx, false, func(ctx context.Context, items []*item) error { return h(ctx, items[0].message()) })
}

// RunBatch is Run for a handler that takes several messages at a time. A batch starts when BatchSize messages can be
// handled, or BatchWait after a worker has found fewer; up to Concurrency batches run at a time, and as many again are
// fetched ahead. In an ordered subscription a batch has at most one message of a key. A drain lets running batches
// finish and gives back one that still waits for more.
func (c *Consumer) RunBatch(ctx context.Context, h BatchHandler) error {
	if h == nil {
		return fmt.Errorf("pubsub: consumer %q: RunBatch with a nil handler", c.Config().Name)
	}
	return c.run(ctx, true, func(ctx context.Context, items []*item) error {
		msgs := make([]Message, len(items))
		for i, it := range items {
			msgs[i] = it.message()
		}
		return h(ctx, msgs)
	})
}

func (c *Consumer) run(ctx context.Context, batched bool, invoke func(context.Context, []*item) error) error {
	c.mu.Lock()
	if c.closed || c.started {
		c.mu.Unlock()
		return ErrClosed
	}
	c.started = true
	base, cancelHandlers := context.WithCancelCause(context.WithoutCancel(ctx))
	c.base, c.invoke, c.batched = base, invoke, batched
	c.intake, c.haltIntake = context.WithCancel(ctx)
	defer c.haltIntake()
	defer context.AfterFunc(c.stopping, c.haltIntake)()
	c.halted = false
	c.stir()
	c.mu.Unlock()
	defer close(c.stopped)

	background, endBackground := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { c.settler.run(background) })
	wg.Go(func() { c.keepLeases(background) })

	<-c.intake.Done()
	begun := time.Now()
	drainErr := c.drain(cancelHandlers)
	endBackground()
	wg.Wait()
	settleErr := c.lastSettle(ctx, begun)
	cancelHandlers(ErrClosed)
	c.leave()
	return errors.Join(c.intakeErr, drainErr, settleErr, c.closeErr)
}

// drain ends the handling of messages, within the grace.
func (c *Consumer) drain(cancelHandlers context.CancelCauseFunc) error {
	c.mu.Lock()
	c.draining, c.halted = true, true
	c.stopGathering()
	c.pace.stop()
	c.wakeAll() // idle workers end
	c.giveBackWaiting()
	for c.receiving {
		c.quiet.Wait()
	}
	c.giveBackWaiting() // what that Receive brought
	if c.busy == 0 {
		c.signalDrained()
	}
	c.mu.Unlock()

	err := c.waitDrained(cancelHandlers)

	c.mu.Lock()
	defer c.mu.Unlock()
	c.giveBack(func(*item) bool { return true })
	return err
}

// giveBackWaiting gives back what is not being handled, for others to have it at once. Ordered messages must stay
// behind those that are.
func (c *Consumer) giveBackWaiting() {
	if !c.queue.ordered {
		c.giveBack(func(it *item) bool { return it.state != stateRunning })
	}
}

func (c *Consumer) waitDrained(cancelHandlers context.CancelCauseFunc) error {
	grace := c.Config().DrainTimeout
	if grace < 0 {
		<-c.drained
		return nil
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-c.drained:
		return nil
	case <-timer.C:
	}
	cancelHandlers(ErrDrainTimeout)
	timer.Reset(graceToHonour)
	select {
	case <-c.drained:
	case <-timer.C:
	}
	return fmt.Errorf("%w (consumer %q)", ErrDrainTimeout, c.Config().Name)
}

// giveBack nacks the held items that pass, in order, and lets go of them.
func (c *Consumer) giveBack(pass func(*item) bool) {
	for it := range c.queue.all() {
		if it.lost || !pass(it) {
			continue
		}
		it.lost = true
		if it.timer != nil {
			it.timer.Stop()
		}
		c.verdicts = append(c.verdicts, settlement{Verdict{Token: it.Token, Kind: Nack}, nil, it.leaseUntil})
	}
	c.passVerdicts()
}

// signalDrained is called with draining set and nothing running.
func (c *Consumer) signalDrained() {
	select {
	case <-c.drained:
	default:
		close(c.drained)
	}
}

// lastSettle settles what is left within the rest of the grace.
func (c *Consumer) lastSettle(ctx context.Context, begun time.Time) error {
	s := c.Config()
	limit := s.Lease
	if s.DrainTimeout >= 0 {
		limit = min(limit, max(s.DrainTimeout-time.Since(begun), time.Second))
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer cancel()
	if err := c.settler.last(ctx); err != nil {
		return fmt.Errorf("pubsub: consumer %q: last verdicts not accepted: %w", s.Name, err)
	}
	return nil
}

// keepLeases extends, every third of the lease, what is held.
func (c *Consumer) keepLeases(ctx context.Context) {
	lease := c.Config().Lease
	ticker := time.NewTicker(lease / 3)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			c.settler.add(c.extensions(c.clock.now(), lease)...)
			c.settler.stir()
		}
	}
}

// extensions lists the leases to extend, and marks those that have run out.
func (c *Consumer) extensions(now, lease time.Duration) []settlement {
	c.mu.Lock()
	defer c.mu.Unlock()
	var batch []settlement
	for it := range c.queue.all() {
		left := it.leaseUntil - now
		switch {
		case it.lost:
		case left <= 0:
			c.queue.lose(it, now)
		case it.state == stateRunning && it.overdue > 0 && now > it.overdue:
		case left <= lease*5/6: // younger ones have time until the next round
			it.extended = true
			batch = append(batch, settlement{Verdict{Token: it.Token, Kind: Extend}, it, it.leaseUntil})
		}
	}
	c.stir() // what was dropped has to be removed
	return batch
}
