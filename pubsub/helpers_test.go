package pubsub_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/backstay-go/backstay/pubsub"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// scripted is a driver whose answers a test gives.
type scripted struct {
	caps       pubsub.Capabilities
	publish    func([]pubsub.Message) []error
	deliveries chan []pubsub.Delivery
	receiveErr chan error
	epoch      uint64
	settle     func(context.Context, []pubsub.Verdict) error
	closeErr   error // of receivers

	mu       sync.Mutex
	verdicts []pubsub.Verdict // accepted ones, without Extend
	extended int
	asked    []int // limit of every Receive
	closed   int
}

func newScripted(caps pubsub.Capabilities) *scripted {
	caps.Driver, caps.Durability = "scripted", "none"
	return &scripted{caps: caps, deliveries: make(chan []pubsub.Delivery, 1000), receiveErr: make(chan error, 1)}
}

func (d *scripted) Publish(_ context.Context, msgs []pubsub.Message) []error {
	if d.publish == nil {
		return nil
	}
	return d.publish(msgs)
}

func (d *scripted) Open(context.Context, pubsub.Subscription) (pubsub.Receiver, error) {
	return &scriptedReceiver{d}, nil
}
func (d *scripted) Capabilities() pubsub.Capabilities { return d.caps }
func (d *scripted) Close() error                      { return nil }

type scriptedReceiver struct{ *scripted }

func (r *scriptedReceiver) Receive(ctx context.Context, limit int) ([]pubsub.Delivery, error) {
	r.mu.Lock()
	r.asked = append(r.asked, limit)
	r.mu.Unlock()
	select {
	case got := <-r.deliveries:
		return got, nil
	case err := <-r.receiveErr:
		return nil, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (r *scriptedReceiver) Settle(ctx context.Context, verdicts []pubsub.Verdict) error {
	if r.settle != nil {
		if err := r.settle(ctx, verdicts); err != nil {
			return err
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, v := range verdicts {
		if v.Kind == pubsub.Extend {
			r.extended++
			continue
		}
		r.verdicts = append(r.verdicts, v)
	}
	return nil
}

func (r *scriptedReceiver) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed++
	return r.closeErr
}

// given returns the verdicts that the broker has.
func (d *scripted) given() []pubsub.Verdict {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]pubsub.Verdict(nil), d.verdicts...)
}

// deliver hands out messages in one Receive; their keys are the first letters of their IDs.
func (d *scripted) deliver(attempt int, ids ...string) {
	var batch []pubsub.Delivery
	for _, id := range ids {
		batch = append(batch, pubsub.Delivery{Message: pubsub.Message{ID: id, Topic: "t", Key: id[:1], Attempt: attempt}, Epoch: d.epoch, Token: token(id, d.epoch)})
	}
	d.deliveries <- batch
}

// token is the ID in the first epoch.
func token(id string, epoch uint64) string {
	if epoch < 2 {
		return id
	}
	return fmt.Sprint(id, "@", epoch)
}

func ack(token string) pubsub.Verdict { return pubsub.Verdict{Token: token, Kind: pubsub.Ack} }

func nack(token string, d time.Duration) pubsub.Verdict {
	return pubsub.Verdict{Token: token, Kind: pubsub.Nack, Delay: d}
}

// start opens and runs; stop cancels and returns Run's result.
func start(t *testing.T, d pubsub.Driver, s pubsub.Subscription, h pubsub.Handler, opts ...pubsub.Option) (c *pubsub.Consumer, stop func() error) {
	t.Helper()
	if s.Topic == "" {
		s.Topic, s.Group = "t", "g"
	}
	c, err := pubsub.New(d, opts...).Open(t.Context(), s)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel) // so that a failed test does not look like a deadlock
	result := make(chan error, 1)
	go func() { result <- c.Run(ctx, h) }()
	return c, func() error {
		cancel()
		return <-result
	}
}

var errBoom = errors.New("boom")

func succeed(context.Context, pubsub.Message) error { return nil }

// elapse lets time of the bubble's clock pass, until everybody waits again.
func elapse(d time.Duration) {
	take(d)
	synctest.Wait()
}

// take is what a handler does that takes a while.
func take(d time.Duration) { <-time.After(d) }
