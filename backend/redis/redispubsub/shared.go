package redispubsub

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/redis/rueidis"

	"github.com/backstay-go/backstay/pubsub"
)

const (
	// paceOver is the time over which a receiver measures how much its owner takes.
	paceOver = 20 * time.Millisecond
	// paceLeast is what it takes to have messages fetched ahead, and paceMost what is fetched at once at most.
	paceLeast = 64
	paceMost  = 2048
	// claimMost is the number of messages taken over at a time.
	claimMost = 64
)

// shared is a member of an unordered group: its lanes are streams that all members read from.
type shared struct {
	*member
	acks  *acks
	close func() error

	hungry chan struct{} // capacity 1: wakes the reader
	bells  chan struct{} // capacity 1: wakes the keeper

	readyMu sync.Mutex
	ready   [][]pubsub.Delivery // fetched and not delivered
	waiting int                 // in ready
	limit   int                 // of a Receive that waits
	pace    pace
	turn    int

	claimer decoder // of the keeper
	reader  decoder
}

// held is a delivery as the server knows it: an entry and how often it has been delivered. A Delivery's Token points to
// one.
type held struct {
	lane  int
	id    string
	count int
	at    time.Duration // its lease began no earlier
}

// batch makes deliveries. Their tokens are in one piece of memory.
type batch struct {
	ds     []pubsub.Delivery
	tokens []held
}

func newBatch(n int) *batch {
	return &batch{make([]pubsub.Delivery, 0, n), make([]held, 0, n)}
}

// add takes in an entry, unless it has been deleted. It must not be called more often than the batch has room.
func (b *batch) add(d *decoder, lane, count int, e rueidis.RedisMessage, at time.Duration) error {
	id, m, ok, err := d.entry(e)
	if err != nil || !ok {
		return err
	}
	m.Attempt = count
	b.tokens = append(b.tokens, held{lane, id, count, at})
	b.ds = append(b.ds, pubsub.Delivery{Message: m, Token: &b.tokens[len(b.tokens)-1]})
	return nil
}

// pace is how fast the owner takes messages.
type pace struct {
	since time.Duration
	taken int
	last  int
}

// note counts n more.
func (p *pace) note(now time.Duration, n int) {
	if span := now - p.since; span > paceOver {
		p.last = 0
		if span < 4*paceOver {
			p.last = p.taken
		}
		p.since, p.taken = now, 0
	}
	p.taken += n
}

// ask is how much to fetch for one who waits for limit.
func (p *pace) ask(limit int) int {
	if recent := max(p.last, p.taken); recent >= paceLeast {
		return min(max(limit, recent), max(limit, paceMost))
	}
	return limit
}

func startShared(m *member) *shared {
	r := &shared{
		member: m, hungry: make(chan struct{}, 1), bells: make(chan struct{}, 1),
		claimer: decoder{topic: m.topic.name}, reader: decoder{topic: m.topic.name},
	}
	r.acks = newAcks(m)
	r.close = sync.OnceValue(r.doClose)
	r.running.Go(r.acks.run)
	r.running.Go(r.read)
	r.running.Go(r.keep)
	return r
}

// Receive returns what has been fetched, or waits for it.
func (r *shared) Receive(ctx context.Context, limit int) ([]pubsub.Delivery, error) {
	defer r.enter()()
	for {
		if err := r.failure(); err != nil {
			return nil, err
		}
		if err := ctx.Err(); err != nil {
			r.want(0)
			return nil, err
		}
		ds := r.take(max(limit, 1))
		if len(ds) == 0 {
			if err := r.await(ctx); err != nil {
				r.want(0)
				return nil, err
			}
			continue
		}
		ds, err := r.refresh(ctx, ds)
		if err != nil || len(ds) == 0 {
			continue // what is lost comes again
		}
		r.count(ds)
		return ds, nil
	}
}

// want notes what Receive waits for.
func (r *shared) want(limit int) {
	r.readyMu.Lock()
	r.limit = limit
	r.readyMu.Unlock()
}

// take takes what is ready, and asks for more in time.
func (r *shared) take(limit int) []pubsub.Delivery {
	r.readyMu.Lock()
	defer r.readyMu.Unlock()
	var ds []pubsub.Delivery
	if len(r.ready) > 0 {
		first := r.ready[0]
		n := min(limit, len(first))
		ds, r.ready[0] = first[:n:n], first[n:]
		if n == len(first) {
			r.ready[0] = nil
			r.ready = r.ready[1:]
		}
		r.waiting -= n
	}
	r.pace.note(r.driver.now(), len(ds))
	r.limit = 0
	if len(ds) == 0 {
		r.limit = limit
	}
	if r.missing() > 0 {
		kick(r.hungry)
	}
	return ds
}

// missing is the number of messages to be fetched now. The lock is held.
func (r *shared) missing() int {
	ask := r.pace.ask(max(r.limit, 1))
	switch {
	case ask >= paceLeast && r.waiting <= ask/2:
		return ask
	case r.limit > 0 && r.waiting == 0:
		return ask
	}
	return 0
}

// refresh begins the leases of messages anew that have waited here, and drops those that are lost.
func (r *shared) refresh(ctx context.Context, ds []pubsub.Delivery) ([]pubsub.Delivery, error) {
	now := r.driver.now()
	old := func(d pubsub.Delivery) bool { return now-d.Token.(*held).at > r.lease/20 }
	if !slices.ContainsFunc(ds, old) {
		return ds, nil
	}
	kept, err := r.hold(ctx, true, tokensOf(ds))
	if err != nil {
		return nil, err
	}
	live := ds[:0:0]
	for i := range ds {
		if kept[i] {
			live = append(live, ds[i])
		}
	}
	return live, nil
}

func tokensOf(ds []pubsub.Delivery) []*held {
	tokens := make([]*held, len(ds))
	for i := range ds {
		tokens[i] = ds[i].Token.(*held)
	}
	return tokens
}

// hold keeps deliveries, with their leases begun anew, or gives them back. It tells which of them the member had.
func (r *shared) hold(ctx context.Context, keep bool, tokens []*held) ([]bool, error) {
	what := "back"
	if keep {
		what = "keep"
	}
	args := make([]string, 0, 2+4*len(tokens))
	args = append(args, r.group, r.name)
	for _, t := range tokens {
		args = append(args, strconv.Itoa(t.lane), t.id, strconv.Itoa(t.count), what)
	}
	answer, err := r.driver.attend(ctx, holdScript, r.topic.lanes, args...)
	if err != nil {
		return nil, err
	}
	did, err := answer.AsIntSlice()
	if err != nil || len(did) != len(tokens) {
		return nil, fmt.Errorf("%w: %w", errAnswer, err)
	}
	held := make([]bool, len(did))
	for i, n := range did {
		held[i] = n == 1
	}
	return held, nil
}

func (r *shared) count(ds []pubsub.Delivery) {
	redelivered := 0
	for i := range ds {
		if ds[i].Attempt > 1 {
			redelivered++
		}
	}
	r.driver.counts.received.Add(uint64(len(ds)))
	r.driver.counts.redelivered.Add(uint64(redelivered))
}

// Settle passes on acknowledgements without waiting for the answer, and waits for it with the rest.
func (r *shared) Settle(ctx context.Context, verdicts []pubsub.Verdict) error {
	r.seen()
	var keep, back []*held
	for _, v := range verdicts {
		t, ok := v.Token.(*held)
		if !ok {
			return fmt.Errorf("redispubsub %q: token %v is not of this receiver", r.driver.cfg.Name, v.Token)
		}
		switch v.Kind {
		case pubsub.Extend:
			keep = append(keep, t)
		case pubsub.Nack:
			back = append(back, t)
		}
	}
	r.acks.add(verdicts)
	if len(keep) > 0 {
		if _, err := r.hold(ctx, true, keep); err != nil {
			return r.wrap(err)
		}
	}
	if len(back) > 0 {
		if _, err := r.hold(ctx, false, back); err != nil {
			return r.wrap(err)
		}
		kick(r.bells)
		r.ringOthers(ctx)
	}
	return nil
}

// push makes what was fetched ready.
func (r *shared) push(b *batch) {
	if len(b.ds) == 0 {
		return
	}
	r.readyMu.Lock()
	r.ready = append(r.ready, b.ds)
	r.waiting += len(b.ds)
	r.readyMu.Unlock()
	r.announce()
}

// keep gives signs of life, takes over what others have lost or given back, and gives back what waits here in vain.
func (r *shared) keep() {
	ticker := time.NewTicker(r.every())
	defer ticker.Stop()
	var pause time.Duration
	for {
		ctx, cancel := r.call()
		err := r.lookAfter(ctx)
		cancel()
		switch {
		case err == nil:
			pause = 0
		case isFinal(err):
			r.fail(err)
			return
		case !r.nap(&pause):
			return
		default:
			continue
		}
		select {
		case <-ticker.C:
		case <-r.bells:
		case <-r.closing:
			return
		case <-r.ctx.Done():
			return
		}
	}
}

func (r *shared) lookAfter(ctx context.Context) error {
	if err := r.installBell(ctx); err != nil {
		return err
	}
	if _, err := r.beat(ctx, !r.abandoned(), nil); err != nil {
		return err
	}
	if err := r.giveBackOld(ctx); err != nil {
		return err
	}
	if r.abandoned() {
		return nil
	}
	return r.claim(ctx)
}

// installBell makes the stream by which the reader is woken. It lasts as long as somebody looks after it.
func (r *shared) installBell(ctx context.Context) error {
	b := r.driver.client.B()
	answers := r.driver.client.DoMulti(undated{ctx},
		b.XgroupCreate().Key(r.bell()).Group(r.group).Id("$").Mkstream().Build(),
		b.Pexpire().Key(r.bell()).Milliseconds((bellLasts + 2*r.lease).Milliseconds()).Build())
	if err := answers[0].Error(); err != nil && code(err) != "BUSYGROUP" {
		return err
	}
	return answers[1].Error()
}

// giveBackOld gives back what was fetched and not taken for a quarter of the lease.
func (r *shared) giveBackOld(ctx context.Context) error {
	var old []pubsub.Delivery
	now := r.driver.now()
	r.readyMu.Lock()
	for len(r.ready) > 0 && (now-r.ready[0][0].Token.(*held).at > r.lease/4 || r.abandoned()) {
		old = append(old, r.ready[0]...)
		r.waiting -= len(r.ready[0])
		r.ready = r.ready[1:]
	}
	r.readyMu.Unlock()
	if len(old) == 0 {
		return nil
	}
	if _, err := r.hold(ctx, false, tokensOf(old)); err != nil {
		return err
	}
	r.ringOthers(ctx)
	return nil
}

// claim takes over what has been idle for a lease, if the owner waits for something.
func (r *shared) claim(ctx context.Context) error {
	r.readyMu.Lock()
	n := min(r.missing(), claimMost)
	r.readyMu.Unlock()
	if n == 0 {
		return nil
	}
	r.mu.Lock()
	idle := r.idle
	r.mu.Unlock()
	at := r.driver.now()
	answer, err := r.driver.attend(ctx, claimScript, r.topic.lanes, r.group, r.name, millis(idle), strconv.Itoa(n))
	if err != nil {
		return err
	}
	parts, err := answer.ToArray()
	if err != nil {
		return err
	}
	b := newBatch(len(parts) / 3)
	for i := 0; i+2 < len(parts); i += 3 {
		lane, err := parts[i].AsInt64()
		if err != nil {
			return err
		}
		count, err := parts[i+1].AsInt64()
		if err != nil {
			return err
		}
		if err := b.add(&r.claimer, int(lane), int(count), parts[i+2], at); err != nil {
			return err
		}
	}
	r.push(b)
	if len(b.ds) == n { // there may be more
		kick(r.bells)
	}
	return nil
}

// Close gives back what is not settled, and returns when the server knows, or after five seconds without it: then the
// leases run out. Its error wraps pubsub.ErrInDoubt when acknowledgements may be among what the server does not know. It
// can be called more than once.
func (r *shared) Close() error { return r.close() }

func (r *shared) doClose() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	close(r.closing)
	r.ring(ctx, r.name) // the reader
	r.halt(ctx)
	err := r.acks.finish(ctx)
	keys := append([]string{r.topic.members(r.group), r.bell()}, r.topic.lanes...)
	if answer, errLeave := r.driver.attend(ctx, leaveScript, keys, r.group, r.name); errLeave == nil {
		if n, _ := answer.AsInt64(); n > 0 {
			r.ringOthers(ctx)
		}
	}
	if r.temporary {
		r.driver.endGroup(ctx, r.topic, r.group, r.name)
	}
	if err != nil && !isGone(err) {
		return r.wrap(err)
	}
	return nil
}
