package redispubsub

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/backstay-go/backstay/pubsub"
)

// ordered is a member of an ordered group. It has some of the lanes to itself, under leases that it renews, and reads
// them without the help of Redis's groups, since reading changes nothing there: only what is written has to be fenced.
// One goroutine reads, one writes, and Receive and Settle see the memory alone.
type ordered struct {
	*member
	depth int
	close func() error

	hungry chan struct{} // capacity 1: wakes the reader
	work   chan struct{} // capacity 1: wakes the steward

	laneMu  sync.Mutex
	lanes   map[int]*tenure
	turn    []int // lanes in the order in which Receive looks at them
	limit   int   // of a Receive that waits
	pace    pace
	due     bool         // the steward is to look around
	begun   bool         // Receive has been called: the member takes part
	leaving bool         // all lanes go back, since the owner is not heard of or the receiver closes
	ringing bool         // the reader has been rung and not looked around yet
	within  map[int]bool // lanes that the reader waits for, nil while it does not wait

	decoder decoder // of the reader
	bellAt  string  // last ID that the reader has seen of its bell
}

func startOrdered(m *member, s pubsub.Subscription) *ordered {
	r := &ordered{
		member: m, depth: max(s.LaneDepth, 1), hungry: make(chan struct{}, 1), work: make(chan struct{}, 1),
		lanes: make(map[int]*tenure), decoder: decoder{topic: m.topic.name}, bellAt: "0-0",
	}
	r.close = sync.OnceValue(r.doClose)
	r.running.Go(r.steward)
	r.running.Go(r.read)
	return r
}

// fetchAhead is the number of entries of a lane that are fetched at a time.
func (r *ordered) fetchAhead() int { return max(r.depth, 64) }

// Receive returns what is there, or waits for it. With its first call the member begins to take part in the group.
func (r *ordered) Receive(ctx context.Context, limit int) ([]pubsub.Delivery, error) {
	defer r.enter()()
	for {
		if err := r.failure(); err != nil {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if ds := r.take(max(limit, 1)); len(ds) > 0 {
			return ds, nil
		}
		if err := r.await(ctx); err != nil {
			return nil, err
		}
	}
}

// take delivers from all lanes in turn, and sees to it that there is more.
func (r *ordered) take(limit int) []pubsub.Delivery {
	r.laneMu.Lock()
	defer r.laneMu.Unlock()
	if !r.begun || r.leaving {
		r.begun, r.leaving, r.due = true, false, true
		kick(r.work)
		kick(r.hungry)
	}
	var ds []pubsub.Delivery
	redelivered := 0
	for range len(r.turn) {
		if len(ds) == limit {
			break
		}
		lane := r.turn[0]
		r.turn = append(r.turn[1:], lane)
		n := r.lanes[lane]
		for len(ds) < limit {
			e := n.deliver(r.depth, r.lease)
			if e == nil {
				break
			}
			if e.msg.Attempt > 1 {
				redelivered++
			}
			ds = append(ds, pubsub.Delivery{
				Message: e.msg, Lane: lane, Epoch: n.epoch, Token: &ticket{n, e, n.epoch}, Stale: n.isStale,
			})
		}
	}
	r.pace.note(r.driver.now(), len(ds))
	r.limit = limit
	r.stir()
	r.driver.counts.received.Add(uint64(len(ds)))
	r.driver.counts.redelivered.Add(uint64(redelivered))
	return ds
}

// stir wakes who has something to do. The lock is held.
func (r *ordered) stir() {
	ready, countable := 0, 0
	low, shut := false, false
	for lane, n := range r.lanes {
		ready += n.counted - n.next
		countable += n.countable(r.depth, 1)
		if n.fresh() < r.fetchAhead()/2 {
			low = true
			shut = shut || n.fresh() == 0 && r.within != nil && !r.within[lane]
		}
	}
	if countable > 0 && ready <= r.pace.ask(r.limit)/2 {
		kick(r.work)
	}
	if low {
		kick(r.hungry)
	}
	if shut && !r.ringing { // it waits for other lanes only
		r.ringing = true
		kick(r.work)
	}
}

// Settle notes the verdicts. Acknowledgements go to the server as soon as the answer to those before them has come.
func (r *ordered) Settle(_ context.Context, verdicts []pubsub.Verdict) error {
	r.seen()
	r.laneMu.Lock()
	defer r.laneMu.Unlock()
	now := r.driver.now()
	changed := false
	for _, v := range verdicts {
		t, ok := v.Token.(*ticket)
		if !ok {
			return fmt.Errorf("redispubsub %q: token %v is not of this receiver", r.driver.cfg.Name, v.Token)
		}
		n, e := t.tenure, t.entry
		current := e.delivered && e.epoch == t.epoch
		switch {
		case n.lost.Load():
		case v.Kind == pubsub.Ack:
			n.settle(e)
			changed = true
		case v.Kind == pubsub.Extend && current:
			e.ends = now + r.lease
		case v.Kind == pubsub.Nack && current:
			n.rewind = true
			changed = true
		}
	}
	if changed {
		kick(r.work)
		r.stir()
	}
	return nil
}

// Close gives the lanes back, with what is not settled, and returns when the server knows, or after five seconds without
// it: then the leases run out. Its error wraps pubsub.ErrInDoubt when acknowledgements may be among what the server does
// not know. It can be called more than once.
func (r *ordered) Close() error { return r.close() }

func (r *ordered) doClose() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	close(r.closing)
	r.ring(ctx, r.name) // the reader
	r.halt(ctx)
	open, err := r.giveBack(ctx)
	b := r.driver.client.B()
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.driver.client.DoMulti(undated{ctx}, b.Zrem().Key(r.topic.members(r.group)).Member(r.name).Build(), b.Del().Key(r.bell()).Build())
	}()
	select {
	case <-done:
		r.ringOthers(ctx)
	case <-ctx.Done():
	}
	if r.temporary {
		r.driver.endGroup(ctx, r.topic, r.group, r.name)
	}
	if err != nil && open > 0 && !isGone(err) {
		return r.wrap(fmt.Errorf("%d acknowledgements: %w: %w", open, pubsub.ErrInDoubt, err))
	}
	return nil
}

// giveBack frees all lanes, again and again until ctx ends. It returns the number of acknowledgements that are open.
func (r *ordered) giveBack(ctx context.Context) (open int, err error) {
	r.laneMu.Lock()
	r.leaving = true
	r.laneMu.Unlock()
	for {
		if err = r.sync(ctx); err == nil || isGone(err) {
			return 0, err
		}
		timer := time.NewTimer(retryFirst)
		select {
		case <-timer.C:
			continue
		case <-ctx.Done():
			timer.Stop()
		}
		r.laneMu.Lock()
		defer r.laneMu.Unlock()
		for _, n := range r.lanes {
			open += n.dirty
		}
		return open, err
	}
}
