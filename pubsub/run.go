package pubsub

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Run receives messages and calls h for them until ctx is cancelled, Close is called, or the broker refuses for good.
// It blocks, and may be called once; a second call returns ErrClosed.
//
// When asked to stop it drains: it receives no more, lets running handlers finish for DrainTimeout, gives the rest back
// to the broker, settles, leaves the group, and returns nil. The handlers' contexts carry the values of ctx and not its
// cancellation. When the grace is used up, they are cancelled and have a moment more to return; then Run gives back
// what they hold and returns ErrDrainTimeout, without waiting for a handler that ignores its context. Other errors are
// those of the broker.
func (c *Consumer) Run(ctx context.Context, h Handler) error {
	if h == nil {
		return fmt.Errorf("pubsub: consumer %q: Run with a nil handler", c.Config().Name)
	}
	c.mu.Lock()
	if c.closed || c.started {
		c.mu.Unlock()
		return ErrClosed
	}
	c.started = true
	base, cancelHandlers := context.WithCancelCause(context.WithoutCancel(ctx))
	c.base, c.handler = base, h
	c.mu.Unlock()
	defer close(c.stopped)

	background, endBackground := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { c.settler.run(background) })
	wg.Go(func() { c.keepLeases(background) })

	intakeErr := c.intake(ctx)
	begun := time.Now()
	drainErr := c.drain(cancelHandlers)
	endBackground()
	wg.Wait()
	settleErr := c.lastSettle(ctx, begun)
	cancelHandlers(ErrClosed)
	c.leave()
	return errors.Join(intakeErr, drainErr, settleErr, c.closeErr)
}

// intake moves deliveries from the broker into the queue until the consumer is asked to stop (nil) or the receiver
// fails.
func (c *Consumer) intake(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.stopping, cancel)()
	defer context.AfterFunc(ctx, c.wakeIntake)()
	for {
		room := c.waitForRoom(ctx)
		if room == 0 {
			return nil
		}
		deliveries, err := c.receiver.Receive(ctx, room)
		c.accept(deliveries, time.Now())
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("pubsub: consumer %q: receive: %w", c.Config().Name, err)
		}
	}
}

// waitForRoom returns how many deliveries may be taken in, or 0 when ctx is done. At most 2×Concurrency messages are
// held that could be handled now, and no more are asked for before half of that is used up.
func (c *Consumer) waitForRoom(ctx context.Context) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	for ctx.Err() == nil {
		s := c.sub.Load()
		active := c.queue.ready.len() + c.queue.running
		if active <= s.Concurrency && !c.queue.crowded(s.LaneDepth) && c.settler.waiting() < 256+4*s.Concurrency {
			return 2*s.Concurrency - active
		}
		c.space.Wait()
	}
	return 0
}

// accept queues deliveries and finds workers for them.
func (c *Consumer) accept(deliveries []Delivery, now time.Time) {
	lease := c.sub.Load().Lease
	leaseUntil := now.Add(lease - lease/10) // the broker's clock started a little earlier
	items := make([]item, len(deliveries))
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.queue.ready.len()
	for i := range deliveries {
		it := &items[i]
		it.Delivery = deliveries[i]
		it.leaseUntil = leaseUntil
		c.counts.Received++
		if it.Attempt > 1 {
			c.counts.Redelivered++
		}
		c.queue.add(it, now)
	}
	c.employ(c.queue.ready.len() - before) // old ones too, that a new epoch made stale
}

// employ wakes or starts workers for n more ready items.
func (c *Consumer) employ(n int) {
	limit := c.sub.Load().Concurrency
	for ; n > 0 && !c.draining; n-- {
		switch {
		case c.idle > 0:
			c.idle--
			c.work.Signal()
		case c.workers < limit:
			c.workers++
			go c.worker()
		default:
			return // a busy worker looks here when it is done
		}
	}
}

// drain ends the handling of messages, within the grace.
func (c *Consumer) drain(cancelHandlers context.CancelCauseFunc) error {
	c.mu.Lock()
	c.draining = true
	c.work.Broadcast()
	c.idle = 0
	if !c.queue.ordered { // others may have them at once; ordered, they must stay behind those that run
		c.giveBack(func(it *item) bool { return it.state != stateRunning })
	}
	if c.queue.running == 0 {
		c.signalDrained()
	}
	c.mu.Unlock()

	err := c.waitDrained(cancelHandlers)

	c.mu.Lock()
	defer c.mu.Unlock()
	c.giveBack(func(*item) bool { return true })
	return err
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
	var batch []settlement
	for it := range c.queue.all() {
		if it.lost || !pass(it) {
			continue
		}
		it.lost = true
		if it.timer != nil {
			it.timer.Stop()
		}
		batch = append(batch, settlement{Verdict{Token: it.Token, Kind: Nack}, it, it.leaseUntil})
	}
	c.settler.add(batch...)
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
	if err := c.settler.flush(ctx); err != nil {
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
			c.settler.add(c.extensions(time.Now(), lease)...)
		}
	}
}

// extensions lists the leases to extend, and marks those that have run out.
func (c *Consumer) extensions(now time.Time, lease time.Duration) []settlement {
	c.mu.Lock()
	defer c.mu.Unlock()
	var batch []settlement
	before := c.queue.ready.len()
	for it := range c.queue.all() {
		left := it.leaseUntil.Sub(now)
		switch {
		case it.lost:
		case left <= 0:
			c.queue.lose(it, now)
		case it.state == stateRunning && !it.overdue.IsZero() && now.After(it.overdue):
		case left <= lease*5/6: // younger ones have time until the next round
			batch = append(batch, settlement{Verdict{Token: it.Token, Kind: Extend}, it, it.leaseUntil})
		}
	}
	c.employ(c.queue.ready.len() - before)
	return batch
}
