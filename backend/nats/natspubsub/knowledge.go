package natspubsub

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/backstay-go/backstay/pubsub"
)

// Lag implements pubsub.Lagger. Messages that wait for their DeliverAt count until a member has dropped them, and again
// when their time has come.
func (r *receiver) Lag(ctx context.Context) (pubsub.Lag, error) {
	c, err := r.driver.js.Consumer(ctx, r.stream, r.consumer)
	if err != nil {
		return pubsub.Lag{}, fmt.Errorf("natspubsub %q: consumer %s of stream %s: %w", r.driver.cfg.Name, r.consumer, r.stream, err)
	}
	info := c.CachedInfo()
	return pubsub.Lag{Waiting: int64(info.NumPending), Unsettled: int64(info.NumAckPending)}, nil
}

// Lag implements pubsub.Lagger for the lanes that this member has, since no one knows of all: those of a group's members
// add up to that of the group.
func (r *laneReceiver) Lag(ctx context.Context) (pubsub.Lag, error) {
	var lag pubsub.Lag
	var readers []string
	r.mu.Lock()
	for _, l := range r.lanes {
		if !l.owned {
			continue
		}
		lag.Unsettled += int64(l.held)
		for _, e := range l.entries {
			if e.state == entryWaiting {
				lag.Waiting++
			}
		}
		if l.reader != "" {
			readers = append(readers, l.reader)
		}
	}
	r.mu.Unlock()
	pending, errs := make([]uint64, len(readers)), make([]error, len(readers))
	var wg sync.WaitGroup
	for i, reader := range readers {
		wg.Go(func() {
			c, err := r.driver.js.Consumer(ctx, r.stream, reader)
			if errors.Is(err, jetstream.ErrConsumerNotFound) { // the next one tells
				return
			}
			if errs[i] = err; err == nil {
				pending[i] = c.CachedInfo().NumPending
			}
		})
	}
	wg.Wait()
	for _, n := range pending {
		lag.Waiting += int64(n)
	}
	if err := errors.Join(errs...); err != nil {
		return pubsub.Lag{}, r.wrap(err)
	}
	return lag, nil
}

// presence answers those who ask whether a group has members, for as long as one of them is open.
type presence struct{ sub *nats.Subscription }

// presenceSubject is what all members of a group listen to. It is no stream's.
func (c Config) presenceSubject(topic, group string) string {
	sum := sha256.Sum256([]byte(topic))
	return c.Prefix + ".~here." + hex.EncodeToString(sum[:16]) + "." + group
}

func (d *Driver) bePresent(s pubsub.Subscription) (presence, error) {
	sub, err := d.conn.Subscribe(d.cfg.presenceSubject(s.Topic, s.Group), func(m *nats.Msg) { _ = m.Respond(nil) })
	return presence{sub}, err
}

func (p presence) end() {
	if p.sub != nil {
		_ = p.sub.Unsubscribe() // fails when the connection is closed, which ends it too
	}
}

// presenceTimeout bounds the wait for a member that is connected and does not answer.
const presenceTimeout = time.Second

// Responders returns 1 when the group has an open member that answers, which is what package requestreply wants to know,
// and 0 when nobody is connected who could: the servers know who listens and say so at once. It takes a round trip to a
// member, and fails when none answers within a second or before ctx is done. Members must be allowed to subscribe to
// "<Prefix>.~here.>", or they are not found.
func (d *Driver) Responders(ctx context.Context, topic, group string) (int, error) {
	if d.closed.Load() {
		return 0, pubsub.ErrClosed
	}
	ctx, cancel := context.WithTimeout(ctx, presenceTimeout)
	defer cancel()
	_, err := d.conn.RequestWithContext(ctx, d.cfg.presenceSubject(topic, group), nil)
	switch {
	case err == nil:
		return 1, nil
	case errors.Is(err, nats.ErrNoResponders):
		return 0, nil
	}
	return 0, fmt.Errorf("natspubsub %q: topic %s: %w", d.cfg.Name, topic, err)
}
