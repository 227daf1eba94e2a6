package rabbitpubsub

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/backstay-go/backstay/pubsub"
)

// receiver is a member of a group. It has a source for its queue, or for each lane, and hands out what they bring. The
// broker leases nothing: it takes back what a lost connection or closed channel held, and so the receiver gives back
// what its owner does not extend in time.
type receiver struct {
	d      *Driver
	link   *link
	sub    pubsub.Subscription
	base   time.Time
	ctx    context.Context // done once Close is called
	cancel context.CancelFunc
	// patience lasts a while longer: what is asked of the broker meanwhile is not left behind.
	patience context.Context
	wg       sync.WaitGroup
	wake     chan struct{} // capacity 1: something has arrived
	close    func() error

	restoring sync.Mutex
	restored  *session // the connection on which the group was declared last; guarded by restoring

	mu      sync.Mutex
	sources []*source
	buf     queue             // arrived and not delivered
	out     []pubsub.Delivery // used again
	telling *time.Timer       // tells the broker of acknowledgements that nobody else has told it of
	untold  int               // how many there are
	failure error             // beyond repair
	active  bool              // somebody receives: sources consume
	calling bool              // Receive is under way
	seen    time.Duration     // when Receive or Settle was last called
	pace    pace
}

func newReceiver(d *Driver, l *link, sess *session, s pubsub.Subscription) *receiver {
	r := &receiver{d: d, link: l, sub: s, base: time.Now(), wake: make(chan struct{}, 1), restored: sess}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	patience, endPatience := context.WithCancel(context.Background())
	r.patience = patience
	r.close = sync.OnceValue(func() error {
		timer := time.AfterFunc(closeTimeout, endPatience)
		defer endPatience()
		defer timer.Stop()
		return r.doClose()
	})
	for lane, name := range queuesOf(d.cfg, s) {
		src := &source{r: r, lane: lane, queue: name, control: make(chan struct{}, 1)}
		r.sources = append(r.sources, src)
	}
	for _, src := range r.sources {
		r.wg.Go(src.run)
	}
	r.wg.Go(r.keepLeases)
	if len(r.sources) > 1 {
		r.wg.Go(r.shareLanes)
	}
	return r
}

func (r *receiver) now() time.Duration { return time.Since(r.base) }

// Receive returns what has arrived, or waits for it. When ctx ends, an unordered receiver gives back what it has fetched
// ahead; an ordered one has nothing to give, since it follows what is being handled.
func (r *receiver) Receive(ctx context.Context, limit int) ([]pubsub.Delivery, error) {
	for {
		ds, err := r.take(limit)
		if err != nil || len(ds) > 0 {
			return ds, err
		}
		select {
		case <-r.wake:
		case <-ctx.Done():
			r.rest()
			return nil, ctx.Err()
		case <-r.ctx.Done():
			return nil, pubsub.ErrClosed
		}
	}
}

// take returns what is there, and sees to it that more comes.
func (r *receiver) take(limit int) ([]pubsub.Delivery, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ctx.Err() != nil {
		return nil, pubsub.ErrClosed
	}
	if r.failure != nil {
		return nil, r.failure
	}
	now, revived := r.now(), !r.active
	r.seen, r.calling, r.active = now, true, true
	r.pace.asked(limit, r.d.cfg.Prefetch)
	for _, src := range r.sources {
		src.resume(revived)
	}
	r.out = r.out[:0]
	for len(r.out) < limit {
		h := r.buf.pop()
		if h == nil {
			break
		}
		if h.state == arrived {
			r.out = append(r.out, r.deliver(h, now))
		}
	}
	if len(r.out) == 0 {
		r.tellStarved()
	} else {
		r.calling = false
		if r.pace.took(len(r.out), now) && !r.sub.Ordered {
			r.sources[0].stir()
		}
	}
	return r.out, nil
}

// deliver begins the lease.
func (r *receiver) deliver(h *held, now time.Duration) pubsub.Delivery {
	h.state, h.deadline = delivered, now+r.sub.Lease
	d := pubsub.Delivery{Message: h.msg, Token: h}
	h.msg = pubsub.Message{}
	r.d.counts.received.Add(1)
	if d.Attempt > 1 {
		r.d.counts.redelivered.Add(1)
	}
	if r.sub.Ordered {
		d.Lane, d.Epoch, d.Stale = h.stream.lane, h.stream.epoch, h.stream.stale
	}
	return d
}

// rest ends consuming until the next Receive.
func (r *receiver) rest() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calling = false
	if r.sub.Ordered {
		return
	}
	r.active = false
	for _, src := range r.sources {
		src.stir()
	}
}

// Settle writes the verdicts, which does not block. Acknowledgements of all that was delivered up to a message become
// one. What the broker does not read comes again, acknowledged or not, since the connection is lost then.
func (r *receiver) Settle(_ context.Context, verdicts []pubsub.Verdict) error {
	for i := range verdicts {
		if _, ok := verdicts[i].Token.(*held); !ok {
			return fmt.Errorf("rabbitpubsub %q: token %v is not of this driver", r.d.cfg.Name, verdicts[i].Token)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	r.seen = now
	for _, v := range verdicts {
		h := v.Token.(*held)
		if v.Kind != pubsub.Ack || h.state != delivered || h.stream.isDead() {
			continue
		}
		h.stream.acked(h)
	}
	for _, v := range verdicts {
		h := v.Token.(*held)
		switch {
		case h.state != delivered || h.stream.isDead():
		case v.Kind == pubsub.Extend:
			h.deadline = now + r.sub.Lease
		case v.Kind == pubsub.Nack:
			r.giveBack(h)
		}
	}
	return nil
}

// tellSoon has acknowledgements wait for others, to be told to the broker as one: until there are enough of them, and for
// tellDelay at most. The caller holds the mutex.
func (r *receiver) tellSoon() {
	if r.untold++; r.untold > 1 {
		return
	}
	if r.telling == nil {
		r.telling = time.AfterFunc(tellDelay, func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.tell()
		})
		return
	}
	r.telling.Reset(tellDelay)
}

// tell tells the broker of all acknowledgements. The caller holds the mutex.
func (r *receiver) tell() {
	if r.untold == 0 {
		return
	}
	for _, src := range r.sources {
		if src.stream != nil {
			src.stream.tell()
		}
	}
}

// tellStarved tells of acknowledgements while the owner waits for messages, where they may be what the broker waits for
// with the next ones. Fewer wait for others: each time that it is told anything the broker writes to the queue's log.
func (r *receiver) tellStarved() {
	for _, src := range r.sources {
		if st := src.stream; st != nil && len(st.acking) >= st.enough() {
			st.tell()
		}
	}
}

// giveBack has a message delivered again; with order, everything of its lane that is not settled.
func (r *receiver) giveBack(h *held) {
	if r.sub.Ordered {
		h.stream.src.begin()
		return
	}
	h.stream.requeue(h)
}

// keepLeases gives back what its owner has not extended in time, and everything when the owner is silent for a lease.
func (r *receiver) keepLeases() {
	ticker := time.NewTicker(min(max(r.sub.Lease/16, 5*time.Millisecond), 250*time.Millisecond))
	defer ticker.Stop()
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-ticker.C:
			r.checkLeases()
		}
	}
}

func (r *receiver) checkLeases() {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	silent := r.active && !r.calling && now-r.seen > r.sub.Lease
	if silent {
		r.active = false
	}
	for _, src := range r.sources {
		st := src.stream
		if st == nil || st.isDead() {
			continue
		}
		if n := st.expired(now); n > 0 {
			r.d.counts.leasesLost.Add(uint64(n))
		}
		if silent {
			src.begin()
		}
		if !st.isDead() && st.unconfirmed > 0 && now-st.confirmed > confirmEvery {
			src.stir()
		}
	}
	if first := r.buf.first(); !r.sub.Ordered && first != nil && r.pace.stalled(r.buf.len(), now-first.at) {
		r.sources[0].stir()
	}
}

// arrive takes in what a source has got.
func (r *receiver) arrive(hs []*held) {
	r.mu.Lock()
	now := r.now()
	for _, h := range hs {
		h.stream.note(h)
		if h.stream.isDead() {
			continue
		}
		h.at = now
		r.buf.push(h)
	}
	r.mu.Unlock()
	r.stirOwner()
}

func (r *receiver) stirOwner() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// fail ends the receiver: Receive returns err from now on.
func (r *receiver) fail(err error) {
	r.mu.Lock()
	if r.failure == nil {
		r.failure = r.d.wrap("topic "+r.sub.Topic+": group "+r.sub.Group, err)
	}
	r.mu.Unlock()
	r.stirOwner()
}

// restore declares the group again, once on each connection: the broker may have lost it.
func (r *receiver) restore(sess *session) error {
	r.restoring.Lock()
	defer r.restoring.Unlock()
	if r.restored == sess || r.d.cfg.Topology != "declare" {
		return nil
	}
	if err := r.d.subscribe(r.ctx, sess, r.sub); err != nil {
		return err
	}
	r.restored = sess
	return nil
}

// Close gives back what is not settled and returns when the broker has read all acknowledgements, or after some seconds
// without that: then its error wraps pubsub.ErrInDoubt, and their messages may come again. It can be called more than
// once.
func (r *receiver) Close() error { return r.close() }

func (r *receiver) doClose() error {
	r.cancel()
	r.wg.Wait()
	r.mu.Lock()
	if r.telling != nil {
		r.telling.Stop()
	}
	r.mu.Unlock()
	if r.sub.Temporary {
		ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		if sess, err := r.link.get(ctx); err == nil {
			r.d.remove(ctx, sess, r.sub)
		}
	}
	lost := 0
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, src := range r.sources {
		lost += src.lostAcks
	}
	if lost > 0 {
		return r.d.wrap("topic "+r.sub.Topic+": group "+r.sub.Group,
			fmt.Errorf("%w: up to %d acknowledgements: %w", pubsub.ErrInDoubt, lost, errLost))
	}
	return nil
}

// isPermanent reports whether trying again cannot help.
func isPermanent(err error) bool { return errors.Is(err, ErrMismatch) || errors.Is(err, ErrMissing) }
