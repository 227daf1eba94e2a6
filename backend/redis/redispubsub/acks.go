package redispubsub

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/backstay-go/backstay/pubsub"
)

// acks are the acknowledgements of an unordered receiver. They are sent as soon as the answer to those before them has
// come, hence hundreds at a time when there are many, and again when the answer was lost.
type acks struct {
	m    *member
	wake chan struct{} // capacity 1

	mu      sync.Mutex
	ids     [][]string // by lane, to be sent
	waiting int        // in ids
	flight  int        // sent and not answered
	sending sync.Mutex // held while some are sent
	spare   [][]string
}

func newAcks(m *member) *acks {
	return &acks{m: m, wake: make(chan struct{}, 1), ids: make([][]string, len(m.topic.lanes)), spare: make([][]string, len(m.topic.lanes))}
}

// add takes the Acks among the verdicts.
func (a *acks) add(verdicts []pubsub.Verdict) {
	n := 0
	a.mu.Lock()
	for _, v := range verdicts {
		if t, ok := v.Token.(*held); ok && v.Kind == pubsub.Ack {
			a.ids[t.lane] = append(a.ids[t.lane], t.id)
			n++
		}
	}
	a.waiting += n
	a.mu.Unlock()
	if n > 0 {
		kick(a.wake)
	}
}

// run sends until the receiver closes; the last ones are for finish.
func (a *acks) run() {
	var pause time.Duration
	for {
		select {
		case <-a.wake:
		case <-a.m.closing:
			return
		case <-a.m.ctx.Done():
			return
		}
		ctx, cancel := a.m.call()
		err := a.send(ctx)
		cancel()
		switch {
		case err == nil:
			pause = 0
		case isFinal(err):
			a.m.fail(err)
			return
		default:
			if !a.m.nap(&pause) {
				return
			}
			kick(a.wake)
		}
	}
}

// send sends what has gathered and waits for the answers. What fails is kept.
func (a *acks) send(ctx context.Context) error {
	a.sending.Lock()
	defer a.sending.Unlock()
	a.mu.Lock()
	ids := a.ids
	a.ids, a.flight, a.waiting = a.spare, a.waiting, 0
	a.mu.Unlock()
	var cmds rueidis.Commands
	var lanes []int
	for lane := range ids {
		if len(ids[lane]) > 0 {
			cmds = append(cmds, a.m.driver.client.B().Xack().Key(a.m.topic.lanes[lane]).Group(a.m.group).Id(ids[lane]...).Build())
			lanes = append(lanes, lane)
		}
	}
	var first error
	if len(cmds) > 0 {
		for i, answer := range a.m.driver.client.DoMulti(undated{ctx}, cmds...) {
			if err := answer.Error(); err != nil {
				first = err
				continue
			}
			ids[lanes[i]] = ids[lanes[i]][:0]
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.flight = 0
	for lane := range ids {
		if len(ids[lane]) > 0 {
			a.ids[lane] = append(a.ids[lane], ids[lane]...)
			a.waiting += len(ids[lane])
		}
		ids[lane] = ids[lane][:0]
	}
	a.spare = ids
	return first
}

// finish sends the last ones, again and again until ctx ends.
func (a *acks) finish(ctx context.Context) error {
	for {
		ended := make(chan error, 1)
		go func() { ended <- a.send(ctx) }()
		var err error
		select {
		case err = <-ended:
		case <-ctx.Done():
			err = ctx.Err()
		}
		if err == nil || isGone(err) {
			return err
		}
		timer := time.NewTimer(retryFirst)
		select {
		case <-timer.C:
			continue
		case <-ctx.Done():
			timer.Stop()
		}
		a.mu.Lock()
		open := a.waiting + a.flight
		a.mu.Unlock()
		if open == 0 {
			return nil
		}
		return fmt.Errorf("%d acknowledgements: %w: %w", open, pubsub.ErrInDoubt, err)
	}
}
