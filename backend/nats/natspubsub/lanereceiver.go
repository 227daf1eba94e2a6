package natspubsub

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/backstay-go/backstay/pubsub"
)

// Ordered groups keep their lanes themselves. JetStream's own consumers would keep the order only with one message in
// flight (MaxAckPending 1), which is a round trip between any two messages of a lane. With more, a message that is given
// back comes again after later ones; and a consumer that has gone to another member, pinned or not, still takes the
// acknowledgements of the one before, so that nobody can tell when nothing is out any more. A consumer for each owner
// would mend that, but its acknowledgements beyond the floor are lost with it, and its leases are those of messages,
// not of the lane.
//
// So a lane is owned by a lease: a record that its owner replaces again and again, each time that version which it wrote
// before. Who finds a record unchanged for long enough replaces it as well, and the former owner can write no more. The
// record also says what is settled, so that this is fenced by the same comparison, and nothing settled is lost track of
// when a lane changes hands. The owner reads through a consumer that needs no acknowledgements and may be forgotten at any
// time; what is in flight, and what has to come again, is its own business, since nobody else has the lane.

// laneReceiver is a member of an ordered group.
type laneReceiver struct {
	driver  *Driver
	topic   *topic
	sub     pubsub.Subscription
	store   *laneStore
	first   laneRecord // of a lane that has none
	here    presence
	id      string
	stream  string
	inbox   string
	started time.Time
	seen    atomic.Int64 // when Receive or Settle was last called, since started
	status  chan nats.Status
	wake    chan struct{} // for Receive; holds one signal
	poke    chan struct{} // for the keeper; holds one signal
	done    chan struct{} // closed by Close
	close   func() error

	ctx    context.Context // of the keeper
	cancel context.CancelFunc
	kept   chan struct{} // closed when the keeper has ended
	subs   []*nats.Subscription

	mu         sync.Mutex
	running    bool // the keeper was started
	active     bool // it is to have lanes
	closed     bool
	failure    error
	lanes      []*lane
	turn       int // the lane to take from first
	members    map[string]member
	greeted    bool
	lookNow    bool // others have given up lanes
	nextTick   time.Duration
	reconnects uint64
	renewed    chan struct{} // closed when a record is written, and made anew
}

const (
	// laneAhead is how many messages of a lane are asked for at a time.
	laneAhead = 128
	// commitEvery is how long acknowledgements of a lane may go unwritten.
	commitEvery = 20 * time.Millisecond
)

func newLaneReceiver(d *Driver, s pubsub.Subscription, t *topic, store *laneStore, first laneRecord, here presence) *laneReceiver {
	r := &laneReceiver{
		driver: d, topic: t, sub: s, store: store, first: first, here: here,
		id:      rand.Text(),
		stream:  d.cfg.streamName(s.Topic),
		inbox:   d.conn.NewInbox(),
		started: time.Now(),
		status:  d.conn.StatusChanged(nats.CONNECTED, nats.CLOSED),
		wake:    make(chan struct{}, 1),
		poke:    make(chan struct{}, 1),
		done:    make(chan struct{}),
		kept:    make(chan struct{}),
		lanes:   make([]*lane, d.cfg.Lanes),
		members: make(map[string]member),
		renewed: make(chan struct{}),
	}
	for i := range r.lanes {
		r.lanes[i] = &lane{index: i, subject: t.subjects[i]}
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.close = sync.OnceValue(r.doClose)
	return r
}

func (r *laneReceiver) now() time.Duration { return time.Since(r.started) }

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// leaseFor is how long others leave a lane to an owner whose deliveries have that lease, since they have seen its record
// change. A delivery has its whole lease if the owner wrote no longer ago than freshFor.
func leaseFor(lease time.Duration) time.Duration { return lease * 3 / 2 }
func freshFor(lease time.Duration) time.Duration { return lease * 9 / 20 }

// Receive returns what has arrived of the member's lanes, or waits.
func (r *laneReceiver) Receive(ctx context.Context, limit int) ([]pubsub.Delivery, error) {
	for {
		if err := r.begin(); err != nil {
			return nil, err
		}
		ds, requests := r.deliver(limit)
		for _, q := range requests {
			if err := r.request(q); err != nil {
				return nil, err
			}
		}
		if len(ds) > 0 {
			return ds, nil
		}
		if err := r.wait(ctx); err != nil {
			return nil, err
		}
	}
}

// begin starts the keeper, or has it take lanes again.
func (r *laneReceiver) begin() error {
	r.seen.Store(int64(r.now()))
	if r.driver.conn.IsClosed() {
		return r.wrap(nats.ErrConnectionClosed)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.closed:
		return pubsub.ErrClosed
	case r.failure != nil:
		return r.failure
	}
	if !r.running {
		if err := r.listen(); err != nil {
			return r.wrap(err)
		}
		r.running = true
		go r.keep(r.ctx)
	}
	if !r.active {
		r.active, r.greeted, r.nextTick = true, false, 0
		signal(r.poke)
	}
	return nil
}

func (r *laneReceiver) wrap(err error) error {
	return fmt.Errorf("natspubsub %q: topic %s: %w", r.driver.cfg.Name, r.sub.Topic, err)
}

// wait returns nil when there may be something to do, and why not otherwise.
func (r *laneReceiver) wait(ctx context.Context) error {
	timer := time.NewTimer(r.sub.Lease / 4)
	defer timer.Stop()
	select {
	case <-r.wake:
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	case <-r.done:
		return pubsub.ErrClosed
	}
	return nil
}

// pick is an entry to be delivered.
type pick struct {
	msg   *nats.Msg
	from  origin
	lane  int
	epoch uint64
	tries int
	token *laneToken
	stale func() bool
}

// deliver makes deliveries of what has arrived, lane by lane, and lists the requests for more that are due.
func (r *laneReceiver) deliver(limit int) ([]pubsub.Delivery, []laneQuery) {
	picks, requests := r.pick(limit)
	if len(picks) == 0 {
		return nil, requests
	}
	ds := make([]pubsub.Delivery, len(picks))
	redelivered := uint64(0)
	for i := range picks {
		p := &picks[i]
		m := decodeFrom(r.sub.Topic, p.msg, p.from)
		m.Attempt = p.tries
		if p.tries > 1 {
			redelivered++
		}
		ds[i] = pubsub.Delivery{Message: m, Lane: p.lane, Epoch: p.epoch, Token: p.token, Stale: p.stale}
	}
	r.driver.counts.received.Add(uint64(len(ds)))
	r.driver.counts.redelivered.Add(redelivered)
	return ds, requests
}

func (r *laneReceiver) pick(limit int) (picks []pick, requests []laneQuery) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	connected := r.driver.conn.IsConnected()
	var tokens []laneToken
	for i := range r.lanes {
		l := r.lanes[(r.turn+i)%len(r.lanes)]
		if !l.owned || l.leaving || now-l.confirmed >= freshFor(r.sub.Lease) {
			continue
		}
		for len(picks) < limit {
			e := l.next(r.sub.LaneDepth)
			if e == nil {
				break
			}
			if len(tokens) == 0 {
				tokens = make([]laneToken, min(limit-len(picks), 64))
			}
			t := &tokens[0]
			tokens = tokens[1:]
			l.hold(e, t, now+r.sub.Lease)
			picks = append(picks, pick{e.msg, e.from, l.index, l.epoch, e.tries, t, l.stale})
		}
		if !connected {
			continue
		}
		if q, due := l.ask(); due {
			requests = append(requests, q)
		}
		if l.reader == "" {
			signal(r.poke)
		}
	}
	r.turn = (r.turn + 1) % len(r.lanes)
	return picks, requests
}

// Settle notes the verdicts. Acknowledgements are written to the lanes' records by the keeper, at once if none were for
// a while; Close waits for the last ones. For extensions it waits until the lease of the lane is fresh.
func (r *laneReceiver) Settle(ctx context.Context, verdicts []pubsub.Verdict) error {
	r.seen.Store(int64(r.now()))
	if r.driver.conn.IsClosed() {
		return r.wrap(nats.ErrConnectionClosed)
	}
	for _, v := range verdicts {
		if _, ok := v.Token.(*laneToken); !ok {
			return fmt.Errorf("natspubsub %q: token %v is not of this driver", r.driver.cfg.Name, v.Token)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	for {
		unsure, renewed := r.note(verdicts)
		if unsure == 0 {
			return nil
		}
		signal(r.poke)
		select {
		case <-renewed: // once more, which changes nothing but the extensions
		case <-r.done:
			return pubsub.ErrClosed
		case <-ctx.Done():
			return r.wrap(fmt.Errorf("%w: %d leases: the server has not confirmed those of the lanes", pubsub.ErrInDoubt, unsure))
		}
	}
}

// note notes the verdicts. It returns how many extensions have to wait until the lanes' leases are renewed, and what is
// closed when one of them is.
func (r *laneReceiver) note(verdicts []pubsub.Verdict) (unsure int, renewed <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	var back []*lane
	for _, v := range verdicts {
		t := v.Token.(*laneToken)
		switch l, e := t.lane, t.entry; {
		case e.token != t: // lost, or settled before
		case v.Kind == pubsub.Ack:
			l.ack(e)
			if l.cursor < len(l.entries) {
				signal(r.wake) // there may be room now
			}
			r.commitSoon(l)
		case v.Kind == pubsub.Nack:
			back = append(back, l)
		case now-l.confirmed >= freshFor(r.sub.Lease):
			unsure++
		default:
			e.until = now + r.sub.Lease
		}
	}
	for _, l := range back { // what is behind a message that comes again comes again as well
		if l.held > 0 {
			l.anew()
		}
	}
	if len(back) > 0 {
		signal(r.wake)
	}
	return unsure, r.renewed
}

// commitSoon sees to it that the keeper writes the lane's record. It is called with the mutex held.
func (r *laneReceiver) commitSoon(l *lane) {
	if l.acks == l.committed+1 || l.leaving && l.held == 0 {
		signal(r.poke)
	}
}
