package natspubsub

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/backstay-go/backstay/pubsub"
)

// settleTimeout bounds a Settle whose context has no deadline, and the last words of Close.
const settleTimeout = 5 * time.Second

// token is the subject that the verdict is sent to; the server makes a new one for each delivery.
type token string

// receiver is a member of a group. It asks the server for messages only while Receive runs, through a session.
type receiver struct {
	driver    *Driver
	topic     string
	stream    string
	consumers []string // one per lane, or one for all
	ordered   bool
	lease     time.Duration
	status    chan nats.Status // wakes Receive after a reconnect
	done      chan struct{}    // closed by Close
	close     func() error
	started   time.Time
	lastSeen  atomic.Int64 // when Receive or Settle was last called, since started

	mu       sync.Mutex
	session  *session // nil while nobody receives
	sessions []*session
	held     map[token]struct{} // delivered and not settled
}

func newReceiver(d *Driver, s pubsub.Subscription) *receiver {
	r := &receiver{
		started:   time.Now(),
		driver:    d,
		topic:     s.Topic,
		stream:    d.cfg.streamName(s.Topic),
		consumers: d.cfg.consumerNames(s.Group, s.Ordered),
		ordered:   s.Ordered,
		lease:     s.Lease,
		status:    d.conn.StatusChanged(nats.CONNECTED, nats.CLOSED),
		done:      make(chan struct{}),
		held:      make(map[token]struct{}),
	}
	r.close = sync.OnceValue(r.doClose)
	return r
}

// Receive returns what has arrived, or asks the server and waits. When ctx ends, nothing more is asked for, and what
// arrives all the same is given back.
func (r *receiver) Receive(ctx context.Context, limit int) ([]pubsub.Delivery, error) {
	for {
		r.lastSeen.Store(int64(time.Since(r.started)))
		s, err := r.current()
		if err != nil {
			return nil, err
		}
		if arrived := s.take(limit); len(arrived) > 0 {
			return r.deliver(arrived)
		}
		if err = ctx.Err(); err == nil {
			err = s.ask(ctx, limit)
		}
		if err == nil {
			err = r.wait(ctx, s)
		}
		if err != nil {
			r.leave(s)
			return nil, err
		}
	}
}

// wait returns nil when there is something to do, and why not otherwise.
func (r *receiver) wait(ctx context.Context, s *session) error {
	timer := time.NewTimer(s.nextDue())
	defer timer.Stop()
	select {
	case <-s.wake:
	case <-timer.C:
	case <-r.status:
	case <-ctx.Done():
		return ctx.Err()
	case <-r.done:
		return pubsub.ErrClosed
	}
	return nil
}

// current is the session to use, a new one if there is none.
func (r *receiver) current() (*session, error) {
	if r.driver.conn.IsClosed() {
		return nil, fmt.Errorf("natspubsub %q: topic %s: %w", r.driver.cfg.Name, r.topic, nats.ErrConnectionClosed)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.done:
		return nil, pubsub.ErrClosed
	default:
	}
	if r.session == nil {
		s, err := newSession(r)
		if err != nil {
			return nil, fmt.Errorf("natspubsub %q: topic %s: %w", r.driver.cfg.Name, r.topic, err)
		}
		r.session = s
	}
	return r.session, nil
}

// leave ends the session.
func (r *receiver) leave(s *session) {
	r.mu.Lock()
	if r.session == s {
		r.session = nil
	}
	r.mu.Unlock()
	s.end()
}

// deliver makes deliveries of messages, with a fresh lease where they have waited here.
func (r *receiver) deliver(arrived []arrival) ([]pubsub.Delivery, error) {
	ds := make([]pubsub.Delivery, 0, len(arrived))
	for _, a := range arrived {
		if time.Since(a.at) > r.lease/20 {
			if err := r.driver.conn.Publish(a.msg.Reply, ackProgress); err != nil {
				return nil, err // the connection is closed for good
			}
		}
		m, epoch, err := decode(r.topic, a.msg)
		if err != nil {
			return nil, err
		}
		r.driver.counts.received.Add(1)
		if m.Attempt > 1 {
			r.driver.counts.redelivered.Add(1)
		}
		ds = append(ds, pubsub.Delivery{Message: m, Lane: a.lane, Epoch: epoch, Token: token(a.msg.Reply)})
	}
	r.mu.Lock()
	for _, d := range ds {
		r.held[d.Token.(token)] = struct{}{}
	}
	r.mu.Unlock()
	return ds, nil
}

var (
	ackDone     = []byte("+ACK")
	ackProgress = []byte("+WPI")
	ackBack     = []byte("-NAK")
)

// Settle sends the verdicts and returns when the server has read them.
func (r *receiver) Settle(ctx context.Context, verdicts []pubsub.Verdict) error {
	r.lastSeen.Store(int64(time.Since(r.started)))
	for _, v := range verdicts {
		t, ok := v.Token.(token)
		if !ok {
			return fmt.Errorf("natspubsub %q: token %v is not of this driver", r.driver.cfg.Name, v.Token)
		}
		if err := r.driver.conn.Publish(string(t), verdictText(v)); err != nil {
			return fmt.Errorf("natspubsub %q: topic %s: %w", r.driver.cfg.Name, r.topic, err)
		}
	}
	if err := r.flush(ctx); err != nil {
		return fmt.Errorf("natspubsub %q: topic %s: %w: %w", r.driver.cfg.Name, r.topic, pubsub.ErrInDoubt, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, v := range verdicts {
		if v.Kind != pubsub.Extend {
			delete(r.held, v.Token.(token))
		}
	}
	return nil
}

func verdictText(v pubsub.Verdict) []byte {
	switch {
	case v.Kind == pubsub.Ack:
		return ackDone
	case v.Kind == pubsub.Extend:
		return ackProgress
	case v.Delay > 0:
		return fmt.Appendf(nil, `-NAK {"delay": %d}`, v.Delay.Nanoseconds())
	default:
		return ackBack
	}
}

// flush returns when the server has read everything sent before.
func (r *receiver) flush(ctx context.Context) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, settleTimeout)
		defer cancel()
	}
	return r.driver.conn.FlushWithContext(ctx)
}

// Close gives back what is not settled and returns when the server knows, or after five seconds without it: then the
// leases run out. It can be called more than once.
func (r *receiver) Close() error { return r.close() }

func (r *receiver) doClose() error {
	close(r.done)
	r.driver.conn.RemoveStatusListener(r.status)
	r.mu.Lock()
	s, sessions, held := r.session, r.sessions, r.held
	r.session, r.sessions, r.held = nil, nil, make(map[token]struct{})
	r.mu.Unlock()
	if r.driver.conn.IsClosed() {
		return nil
	}
	if s != nil {
		s.end()
	}
	for t := range held {
		if err := r.driver.conn.Publish(string(t), ackBack); err != nil {
			return nil //nolint:nilerr // the connection has just been closed: leases run out
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
	defer cancel()
	for _, s := range sessions {
		s.awaitEnd(ctx)
	}
	_ = r.flush(ctx) // without it the leases run out
	return nil
}

// verify asks the server whether the consumer behind a failed request is still there. Nil means to try again.
func (r *receiver) verify(ctx context.Context, consumer string) error {
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	_, err := r.driver.js.Consumer(ctx, r.stream, consumer)
	if errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("natspubsub %q: consumer %s of stream %s: %w", r.driver.cfg.Name, consumer, r.stream, err)
	}
	return nil
}
