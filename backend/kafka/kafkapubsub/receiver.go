package kafkapubsub

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/backstay-go/backstay/pubsub"
)

// receiver is a member of a group. It joins with the first Receive, and leaves with Close, or when its owner was not heard
// of for a lease; the next Receive joins again.
type receiver struct {
	driver  *Driver
	topic   string // as services name it
	name    string // as Kafka does
	group   string
	ordered bool
	depth   int // of an ordered lane, zero when unordered
	lease   time.Duration
	done    chan struct{} // closed by Close
	close   func() error
	kept    sync.WaitGroup // of the goroutine that looks after leases and commits
	ending  sync.Mutex     // held while a session ends
	commits chan struct{}  // capacity 1: full while offsets are committed

	mu       sync.Mutex
	changed  *sync.Cond // for callbacks of the client: something was settled, or the time has come
	session  *session
	lanes    map[int32]*lane
	decoder  decoder
	out      []pubsub.Delivery // what Receive has returned last
	queue    []*lane           // those that may have something to deliver, in turn
	epochs   map[int32]uint64  // last epoch of a partition
	seen     time.Duration     // when the owner was last heard of
	inside   bool              // the owner is in Receive
	closed   bool
	polling  bool
	polls    uint64 // that have ended
	stopPoll context.CancelFunc
	resume   []int32 // paused partitions that have room again
	err      error   // why no session can be had
}

func newReceiver(d *Driver, s pubsub.Subscription) *receiver {
	r := &receiver{
		driver: d, topic: s.Topic, name: d.cfg.Prefix + s.Topic, group: d.cfg.groupID(s.Topic, s.Group),
		ordered: s.Ordered, lease: s.Lease, done: make(chan struct{}), commits: make(chan struct{}, 1),
		decoder: decoder{topic: s.Topic}, lanes: make(map[int32]*lane), epochs: make(map[int32]uint64), seen: now(),
	}
	if s.Ordered {
		r.depth = max(s.LaneDepth, 1)
	}
	r.changed = sync.NewCond(&r.mu)
	r.close = sync.OnceValue(r.doClose)
	r.kept.Go(r.keepLeases)
	r.kept.Go(r.keepCommitting)
	return r
}

// pollMost is how many records are taken from the client at a time, once all lanes have begun.
const pollMost = 2048

// Receive returns records that are here, or waits for the brokers.
func (r *receiver) Receive(ctx context.Context, limit int) ([]pubsub.Delivery, error) {
	r.mu.Lock()
	r.inside, r.seen = true, now()
	defer func() {
		r.inside, r.seen = false, now()
		r.mu.Unlock()
	}()
	for {
		if err := r.standing(ctx); err != nil {
			return nil, err
		}
		if ds, fresh := r.deliver(limit); len(ds) > 0 {
			if fresh {
				r.noteDelivery(ctx)
			}
			return ds, nil
		}
		if r.session == nil {
			if err := r.join(); err != nil {
				return nil, err
			}
		}
		r.poll(ctx)
	}
}

// standing returns why nothing can be received any more.
func (r *receiver) standing(ctx context.Context) error {
	switch {
	case r.closed:
		return pubsub.ErrClosed
	case r.err != nil:
		return r.driver.errorf(r.topic, r.err)
	}
	return ctx.Err()
}

// noteDelivery commits that the first records after a change of members were delivered, so that those which kill their
// process are counted. Failing, it costs the count.
func (r *receiver) noteDelivery(ctx context.Context) {
	s := r.session
	r.mu.Unlock()
	defer r.mu.Lock()
	ctx, cancel := context.WithTimeout(ctx, min(time.Second, r.lease/4))
	defer cancel()
	_ = r.commit(ctx, s, nil)
}

// deliver takes from the lanes in turn, at most a share of each, and reports whether one of them was fresh. Of a fresh one
// it takes a single record, so that one commit notes the beginning of many lanes.
func (r *receiver) deliver(limit int) (ds []pubsub.Delivery, fresh bool) {
	if len(r.queue) == 0 || !r.session.pulse.alive() {
		return nil, false
	}
	until := now() + r.lease
	clear(r.out)
	ds = r.out[:0]
	var tokens []delivery
	for len(ds) < limit && len(r.queue) > 0 {
		l := r.queue[0]
		r.queue = r.queue[1:]
		l.queued = false
		share := max(limit/4, 1)
		if l.fresh {
			share = 1
		}
		for ; share > 0 && len(ds) < limit; share-- {
			place, ok := l.take(r.depth)
			if !ok {
				break
			}
			if len(tokens) == 0 {
				tokens = make([]delivery, min(limit-len(ds), 64))
			}
			d := &tokens[0]
			tokens = tokens[1:]
			d.r, d.lane, d.place, d.until = r, l, place, until
			ds = slices.Grow(ds, 1)[:len(ds)+1] // what is behind the end is zero
			r.hand(d, &ds[len(ds)-1])
			if l.fresh {
				l.fresh, fresh = false, true
				l.changed++
			}
		}
		r.enqueue(l)
	}
	r.out = ds
	r.driver.counts.received.Add(uint64(len(ds)))
	return ds, fresh
}

// hand makes the delivery of a record.
func (r *receiver) hand(d *delivery, out *pubsub.Delivery) {
	l := d.lane
	e := l.at(d.place)
	e.attempts++
	e.held = d
	l.held++
	l.high = max(l.high, e.offset+1)
	r.decoder.decode(e.rec, &out.Message)
	out.Attempt = e.attempts
	out.Token, out.Stale = d, d.stale
	if r.ordered {
		out.Lane, out.Epoch = int(l.partition), l.epoch
	}
	if e.attempts > 1 {
		r.driver.counts.redelivered.Add(1)
	}
}

// enqueue puts a lane with something to deliver at the end of the queue.
func (r *receiver) enqueue(l *lane) {
	if !l.queued && !l.gone && l.ready(r.depth) {
		l.queued = true
		r.queue = append(r.queue, l)
	}
}

// Settle notes the verdicts. Acknowledgements are committed every Config.CommitInterval, and by Close.
func (r *receiver) Settle(_ context.Context, verdicts []pubsub.Verdict) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = now()
	leaving := false
	for i := range verdicts {
		d, ok := verdicts[i].Token.(*delivery)
		if !ok || d.r != r {
			return fmt.Errorf("kafkapubsub %q: token %v is not of this receiver", r.driver.cfg.Name, verdicts[i].Token)
		}
		l := d.lane
		r.settle(d, verdicts[i].Kind)
		leaving = leaving || l.leaving.Load()
		if !l.queued {
			r.enqueue(l)
		}
		if l.paused && l.size() <= r.driver.cfg.MaxAhead/2 {
			l.paused = false
			r.resume = append(r.resume, l.partition)
		}
	}
	if leaving {
		r.changed.Broadcast()
	}
	if len(r.queue) > 0 || len(r.resume) > 0 {
		r.wake()
	}
	return nil
}

func (r *receiver) settle(d *delivery, kind pubsub.VerdictKind) {
	l := d.lane
	switch kind {
	case pubsub.Ack:
		l.settle(d)
	case pubsub.Nack:
		if d.place >= l.first && l.at(d.place).held == d {
			l.giveBack(d.place, r.ordered)
		}
	case pubsub.Extend:
		d.until = r.seen + r.lease
	}
}

// wake ends a poll that waits.
func (r *receiver) wake() {
	if r.polling {
		r.stopPoll()
	}
}

// abandon is called for a delivery that will not be handled, since its partition goes to another member.
func (r *receiver) abandon(d *delivery) {
	r.mu.Lock()
	defer r.mu.Unlock()
	d.lane.abandon(d, r.ordered)
	r.changed.Broadcast()
}

// doubt is called for a delivery that will not be handled, since the partition may be somebody else's by now. If it is not,
// it comes again.
func (r *receiver) doubt(d *delivery) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := d.lane; d.place >= l.first && l.at(d.place).held == d {
		l.giveBack(d.place, r.ordered)
		r.enqueue(l)
	}
}

// keepLeases gives back what has lost its lease, and leaves the group when the owner is not heard of.
func (r *receiver) keepLeases() {
	ticker := time.NewTicker(max(r.lease/20, time.Millisecond))
	defer ticker.Stop()
	for {
		select {
		case <-r.done:
			return
		case <-ticker.C:
		}
		r.mu.Lock()
		s, idle := r.session, r.expire()
		r.mu.Unlock()
		if s != nil && idle {
			_ = r.endSession(s)
		}
	}
}

// keepCommitting commits now and then. What fails is tried again.
func (r *receiver) keepCommitting() {
	ticker := time.NewTicker(r.driver.cfg.CommitInterval)
	defer ticker.Stop()
	for {
		select {
		case <-r.done:
			return
		case <-ticker.C:
		}
		r.mu.Lock()
		s := r.session
		r.mu.Unlock()
		if s != nil {
			ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
			stop := context.AfterFunc(s.over, cancel)
			_ = r.commit(ctx, s, nil)
			stop()
			cancel()
		}
	}
}

// expire gives back what has lost its lease, and reports whether the owner was not heard of for one.
func (r *receiver) expire() (idle bool) {
	t := now()
	for _, l := range r.lanes {
		if l.expire(t, r.ordered) {
			r.enqueue(l)
		}
	}
	r.changed.Broadcast()
	if len(r.queue) > 0 {
		r.wake()
	}
	return !r.inside && t-r.seen > r.lease
}

// Close commits what is settled, gives back the rest, and leaves the group. It waits five seconds for the brokers, at
// most. Its error wraps pubsub.ErrInDoubt when they may not know of acknowledgements. It can be called more than once.
func (r *receiver) Close() error { return r.close() }

// settleTimeout bounds a commit, and the last words of Close.
const settleTimeout = 5 * time.Second

func (r *receiver) doClose() error {
	r.mu.Lock()
	r.closed = true
	s := r.session
	r.wake()
	r.changed.Broadcast()
	r.mu.Unlock()
	close(r.done)
	if s != nil {
		s.end()
	}
	r.kept.Wait()
	if s == nil {
		return nil
	}
	return r.endSession(s)
}

// poll waits for records, and takes them in.
func (r *receiver) poll(ctx context.Context) {
	s, resume, most := r.session, r.resume, r.atMost()
	r.resume = nil
	ctx, r.stopPoll = context.WithCancel(ctx)
	r.polling = true
	r.mu.Unlock()
	if len(resume) > 0 {
		s.client.ResumeFetchPartitions(map[string][]int32{r.name: resume})
	}
	fetches := s.client.PollRecords(ctx, most)
	r.mu.Lock()
	r.stopPoll()
	pause := r.ingest(s, fetches)
	r.polling = false
	r.polls++
	r.changed.Broadcast() // for one who waits for records of the past to be in
	if len(pause) > 0 {
		s.client.PauseFetchPartitions(map[string][]int32{r.name: pause})
	}
}

// atMost is how many records are to be taken at a time: while there are lanes that have not begun, or none are assigned yet,
// as many as the metadata of a commit can tell of, for many lanes to begin together.
func (r *receiver) atMost() int {
	begun := len(r.lanes) > 0
	for _, l := range r.lanes {
		begun = begun && !l.fresh
	}
	if begun {
		return pollMost
	}
	return maxAhead + pollMost - r.driver.cfg.MaxAhead
}

// ingest takes in what a poll has brought, and returns the partitions of which enough is here.
func (r *receiver) ingest(s *session, fetches kgo.Fetches) (pause []int32) {
	for i := range fetches {
		for j := range fetches[i].Topics {
			t := &fetches[i].Topics[j]
			for k := range t.Partitions {
				p := &t.Partitions[k]
				l := r.lanes[p.Partition]
				if p.Err != nil {
					r.fault(l, p.Err)
				}
				if s != r.session || l == nil || l.leaving.Load() || len(p.Records) == 0 {
					continue
				}
				l.reserve(len(p.Records))
				for _, rec := range p.Records {
					l.push(rec)
				}
				r.enqueue(l)
				if !l.paused && l.size() >= r.driver.cfg.MaxAhead {
					l.paused = true
					pause = append(pause, p.Partition)
				}
			}
		}
	}
	return pause
}
