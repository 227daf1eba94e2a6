package pubsubtest

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay/pubsub"
)

// pulse notices that the machine stands still. Leases run out then which the driver under test did its best to keep, and
// what follows from that is no fault of it.
type pulse struct {
	longest atomic.Int64
	stop    func()
}

// startPulse feels every step.
func startPulse(step time.Duration) *pulse {
	ctx, cancel := context.WithCancel(context.Background())
	p := &pulse{}
	var wg sync.WaitGroup
	wg.Go(func() {
		ticker := time.NewTicker(step)
		defer ticker.Stop()
		for last := time.Now(); ; {
			select {
			case <-ticker.C:
				p.note(time.Since(last) - step)
				last = time.Now()
			case <-ctx.Done():
				return
			}
		}
	})
	p.stop = func() { cancel(); wg.Wait() }
	return p
}

// note counts d as time during which nothing moved.
func (p *pulse) note(d time.Duration) {
	for {
		longest := p.longest.Load()
		if int64(d) <= longest || p.longest.CompareAndSwap(longest, int64(d)) {
			return
		}
	}
}

// stood is the longest time without a beat.
func (p *pulse) stood() time.Duration { return time.Duration(p.longest.Load()) }

// timedDriver notes how long the broker takes to answer: it may be what stands still.
type timedDriver struct {
	pubsub.Driver
	pulse *pulse
}

func (d *timedDriver) Publish(ctx context.Context, msgs []pubsub.Message) []error {
	defer func(begun time.Time) { d.pulse.note(time.Since(begun)) }(time.Now())
	return d.Driver.Publish(ctx, msgs)
}

func (d *timedDriver) Open(ctx context.Context, s pubsub.Subscription) (pubsub.Receiver, error) {
	r, err := d.Driver.Open(ctx, s)
	if err != nil {
		return nil, err
	}
	return &timedReceiver{r, d.pulse}, nil
}

type timedReceiver struct {
	pubsub.Receiver
	pulse *pulse
}

func (r *timedReceiver) Settle(ctx context.Context, verdicts []pubsub.Verdict) error {
	defer func(begun time.Time) { r.pulse.note(time.Since(begun)) }(time.Now())
	return r.Receiver.Settle(ctx, verdicts)
}
