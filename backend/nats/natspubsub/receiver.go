package natspubsub

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/backstay-go/backstay/pubsub"
)

// settleTimeout bounds a Settle whose context has no deadline, and the last words of Close.
const settleTimeout = 5 * time.Second

// verifyTimeout is how long Receive stands still when the question whether a consumer is there, asked of a server that goes
// down, is lost with the connection.
const verifyTimeout = time.Second

// held is a delivery that is not settled: the token of its verdict, in a list of them.
type held struct {
	reply      string // the subject that the verdict is sent to; the server makes a new one for each delivery
	prev, next *held  // nil when settled
}

// receiver is a member of an unordered group. It asks the server for messages only while Receive runs, through a session.
type receiver struct {
	driver    *Driver
	here      presence
	topic     string
	stream    string
	consumer  string
	temporary bool
	lease     time.Duration
	expires   time.Duration    // of a request: a member that is stopped gets messages until then, and holds them for a lease
	status    chan nats.Status // wakes Receive after a reconnect
	done      chan struct{}    // closed by Close
	close     func() error
	started   time.Time
	lastSeen  atomic.Int64 // when Receive or Settle was last called, since started
	delayed   string       // begins the subjects of what waits for its time; the server sends it too
	acks      acks

	// Used again by each Receive, and by each Settle.
	taken []arrival
	out   []pubsub.Delivery
	acked []string

	mu       sync.Mutex
	session  *session // nil while nobody receives
	sessions []*session
	held     held // head of the ring of what is delivered and not settled
}

func newReceiver(d *Driver, s pubsub.Subscription, here presence) *receiver {
	r := &receiver{
		started:   time.Now(),
		driver:    d,
		here:      here,
		topic:     s.Topic,
		stream:    d.cfg.streamName(s.Topic),
		consumer:  s.Group,
		temporary: s.Temporary,
		lease:     s.Lease,
		expires:   min(max(s.Lease/2, pullLeast), pullExpires),
		status:    d.conn.StatusChanged(nats.CONNECTED, nats.CLOSED),
		done:      make(chan struct{}),
		delayed:   d.cfg.topic(s.Topic).pending,
		acks:      acks{conn: d.conn},
	}
	r.held.prev, r.held.next = &r.held, &r.held
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
		r.forget()
		arrived, hungry := s.take(r.taken[:0], limit)
		r.taken = arrived
		if err = ctx.Err(); err == nil && (hungry || len(arrived) == 0) {
			err = s.ask(ctx, limit)
		}
		if len(arrived) > 0 {
			return r.deliver(arrived)
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

// keptDeliveries is the longest slice that a receiver keeps.
const keptDeliveries = 1024

// forget lets go of what the last Receive has returned: a receiver that waits holds on to no payload.
func (r *receiver) forget() {
	clear(r.taken)
	clear(r.out)
	if cap(r.out) > keptDeliveries {
		r.taken, r.out = nil, nil
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
	ds := slices.Grow(r.out[:0], len(arrived))[:len(arrived)]
	r.out = ds
	tokens := make([]held, len(arrived))
	redelivered := 0
	now := time.Since(r.started)
	for i := range arrived {
		a := &arrived[i]
		if now-a.at > r.lease/20 {
			if err := r.driver.conn.Publish(a.msg.Reply, ackProgress); err != nil {
				return nil, err // the connection is closed for good
			}
		}
		m, _, err := decode(r.topic, a.msg)
		if err != nil {
			return nil, err
		}
		if m.Attempt > 1 {
			redelivered++
		}
		tokens[i].reply = a.msg.Reply
		ds[i] = pubsub.Delivery{Message: m, Token: &tokens[i]}
	}
	r.driver.counts.received.Add(uint64(len(ds)))
	r.driver.counts.redelivered.Add(uint64(redelivered))
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range tokens {
		t, last := &tokens[i], r.held.prev
		t.prev, t.next, last.next, r.held.prev = last, &r.held, t, t
	}
	return ds, nil
}

var (
	ackDone     = []byte("+ACK")
	ackProgress = []byte("+WPI")
	ackBack     = []byte("-NAK")
)

// Settle sends the verdicts and returns when the server has read them. For acknowledgements alone it waits no more than
// every confirmEvery; Close waits for the last ones.
func (r *receiver) Settle(ctx context.Context, verdicts []pubsub.Verdict) error {
	r.lastSeen.Store(int64(time.Since(r.started)))
	reconnects := r.driver.conn.Stats().Reconnects
	acked := r.acked[:0]
	for _, v := range verdicts {
		t, ok := v.Token.(*held)
		if !ok {
			return fmt.Errorf("natspubsub %q: token %v is not of this driver", r.driver.cfg.Name, v.Token)
		}
		if err := r.driver.conn.Publish(t.reply, verdictText(v)); err != nil {
			return fmt.Errorf("natspubsub %q: topic %s: %w", r.driver.cfg.Name, r.topic, err)
		}
		if v.Kind == pubsub.Ack {
			acked = append(acked, t.reply)
		}
	}
	r.acked = acked
	others := len(acked) < len(verdicts)
	if r.acks.add(acked, reconnects) || others {
		err := r.acks.confirm(ctx)
		if err == nil && others && r.driver.conn.Stats().Reconnects != reconnects {
			err = fmt.Errorf("%w: %w", pubsub.ErrInDoubt, nats.ErrDisconnected)
		}
		if err != nil {
			r.acks.forget(len(acked))
			return fmt.Errorf("natspubsub %q: topic %s: %w", r.driver.cfg.Name, r.topic, err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, v := range verdicts {
		if t := v.Token.(*held); v.Kind != pubsub.Extend && t.next != nil {
			t.prev.next, t.next.prev = t.next, t.prev
			t.prev, t.next = nil, nil
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

// Close gives back what is not settled and returns when the server knows, or after five seconds without it: then the
// leases run out. Its error wraps pubsub.ErrInDoubt when acknowledgements may be among what the server does not know.
// It can be called more than once.
func (r *receiver) Close() error { return r.close() }

func (r *receiver) doClose() error {
	close(r.done)
	r.here.end()
	r.driver.conn.RemoveStatusListener(r.status)
	r.mu.Lock()
	s, sessions := r.session, r.sessions
	r.session, r.sessions = nil, nil
	var back []string
	for t := r.held.next; t != &r.held; t = t.next {
		back = append(back, t.reply)
	}
	r.mu.Unlock()
	if r.driver.conn.IsClosed() {
		return nil // which Receive says
	}
	if s != nil {
		s.end()
	}
	ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
	defer cancel()
	for _, s := range sessions {
		s.awaitEnd(ctx)
	}
	if len(back) > 0 {
		r.clearRequests()
	}
	for _, reply := range back {
		if err := r.driver.conn.Publish(reply, ackBack); err != nil {
			return nil //nolint:nilerr // the connection has just been closed: leases run out
		}
	}
	err := r.acks.confirm(ctx)
	if r.temporary {
		r.driver.removeGroup(ctx, r.stream, r.consumer)
	}
	if n := r.acks.open(); err != nil && n > 0 { // what was given back in vain is no fault: its leases run out
		return fmt.Errorf("natspubsub %q: topic %s: %d acknowledgements: %w", r.driver.cfg.Name, r.topic, n, err)
	}
	return nil
}

// clearRequests makes the server look whether somebody waits for what its consumer has been asked for.
func (r *receiver) clearRequests() {
	ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
	defer cancel()
	_, _ = r.driver.js.Consumer(ctx, r.stream, r.consumer)
}

// verify asks the server whether the consumer behind a failed request is still there. Nil means to try again.
func (r *receiver) verify(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, verifyTimeout)
	defer cancel()
	_, err := r.driver.js.Consumer(ctx, r.stream, r.consumer)
	if errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrStreamNotFound) {
		return fmt.Errorf("natspubsub %q: consumer %s of stream %s: %w", r.driver.cfg.Name, r.consumer, r.stream, err)
	}
	return nil
}
