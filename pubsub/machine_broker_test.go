package pubsub_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/backstay-go/backstay/pubsub"
)

// oracle is a broker as bad as its contract allows, which checks what the consumer does with its deliveries.
type oracle struct {
	caps  pubsub.Capabilities
	sub   pubsub.Subscription
	lease time.Duration

	mu          sync.Mutex
	wake        chan struct{}
	msgs        []*tracked
	dups        []*tracked // to be delivered once more, unordered
	lanes       map[int]*oracleLane
	leases      map[string]*leased
	held        map[holdPlace]bool // keys behind a dead letter
	publishMode int
	settleMode  int
	receives    int // calls under way
	settles     int
	allowed     int // handlers at a time
	limit       int // deliveries per Receive
	open        *oracleReceiver
	faults      []string
	starts      int
}

type oracleLane struct {
	epoch  uint64
	leased int
}

type holdPlace struct {
	key   string
	epoch uint64
}

// tracked is a published message and what has become of it.
type tracked struct {
	pubsub.Message
	lane, n int
	script  []string // what the handler does, run by run; then it succeeds
	runs    int
	counted int // deliveries
	foreign bool
	over    bool // handled or a dead letter, at least once
	done    bool // acknowledged
	notYet  time.Time
	current *leased
}

// leased is a delivery and its token.
type leased struct {
	id       string
	m        *tracked
	epoch    uint64
	deadline time.Time
	ackable  bool // the handler returned nil, or the dead letter was accepted
	acked    bool
	running  bool
	owner    *oracleReceiver
}

func newOracle(s pubsub.Subscription, delayedNack bool) *oracle {
	return &oracle{
		caps: pubsub.Capabilities{Driver: "oracle", Ordered: true, DelayedNack: delayedNack},
		sub:  s, lease: s.Lease,
		wake: make(chan struct{}, 1), lanes: make(map[int]*oracleLane), leases: make(map[string]*leased),
		held: make(map[holdPlace]bool),
	}
}

func (o *oracle) fault(format string, args ...any) {
	o.faults = append(o.faults, fmt.Sprintf(format, args...))
}

func (o *oracle) notify() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

func (o *oracle) lane(n int) *oracleLane {
	l := o.lanes[n]
	if l == nil {
		l = &oracleLane{epoch: 1}
		o.lanes[n] = l
	}
	return l
}

// add is a publish by somebody else.
func (o *oracle) add(m pubsub.Message, lane int, script []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	foreign := m.Header[pubsub.HeaderRedrive] == "other/1"
	o.msgs = append(o.msgs, &tracked{Message: m, lane: lane, n: len(o.msgs), script: script, foreign: foreign})
	o.notify()
}

// anew has a lane begin again.
func (o *oracle) anew(n int) {
	l := o.lane(n)
	l.epoch++
	for _, m := range o.msgs {
		if m.lane == n {
			o.takeBack(m)
		}
	}
	o.notify()
}

func (o *oracle) takeBack(m *tracked) {
	if m.current != nil {
		m.current = nil
		o.lane(m.lane).leased--
	}
}

// expire takes back what was leased too long ago, and returns when to look again.
func (o *oracle) expire(now time.Time) time.Duration {
	next := time.Hour
	for _, m := range o.msgs {
		switch l := m.current; {
		case m.done:
		case l == nil:
			if wait := m.notYet.Sub(now); wait > 0 {
				next = min(next, wait)
			}
		case l.deadline.After(now):
			next = min(next, l.deadline.Sub(now))
		case o.sub.Ordered:
			o.anew(m.lane)
		default:
			o.takeBack(m)
		}
	}
	return next
}

// poll leases what it can.
func (o *oracle) poll(r *oracleReceiver, limit int) (out []pubsub.Delivery, next time.Duration) {
	now := time.Now()
	next = o.expire(now)
	for len(o.dups) > 0 && len(out) < limit {
		out = append(out, o.deliver(r, o.dups[0], now, false))
		o.dups = o.dups[1:]
	}
	for _, m := range o.msgs {
		if len(out) == limit {
			break
		}
		if m.done || m.current != nil || m.notYet.After(now) || o.sub.Ordered && o.lane(m.lane).leased >= o.sub.LaneDepth {
			continue
		}
		out = append(out, o.deliver(r, m, now, true))
	}
	return out, next
}

func (o *oracle) deliver(r *oracleReceiver, m *tracked, now time.Time, current bool) pubsub.Delivery {
	l := &leased{id: strconv.Itoa(len(o.leases)), m: m, epoch: o.lane(m.lane).epoch, deadline: now.Add(o.lease), owner: r, ackable: m.foreign}
	o.leases[l.id] = l
	if current {
		m.current = l
		o.lane(m.lane).leased++
	}
	m.counted++
	d := pubsub.Delivery{Message: m.Message, Lane: m.lane, Epoch: l.epoch, Token: l}
	d.Attempt = m.counted
	d.Header = maps.Clone(m.Header)
	if d.Header == nil {
		d.Header = make(pubsub.Header)
	}
	d.Header["lease"] = l.id
	return d
}

// Publish takes dead letters.
func (o *oracle) Publish(_ context.Context, letters []pubsub.Message) []error {
	o.mu.Lock()
	defer o.mu.Unlock()
	errs := make([]error, len(letters))
	for i, letter := range letters {
		l := o.leases[letter.Header["lease"]]
		place := holdPlace{l.m.Key, l.epoch}
		if letter.Header[pubsub.HeaderReason] == "held" && !o.held[place] && l.m.current == l {
			o.fault("%s held without reason", l.m.ID)
		}
		if l.m.foreign {
			o.fault("foreign %s buried", l.m.ID)
		}
		if l.owner.closed {
			o.fault("%s buried after Run", l.m.ID)
		}
		switch o.publishMode {
		case 1:
			errs[i] = errBoom
			continue
		case 2:
			errs[i] = pubsub.ErrInDoubt
		case 3: // each on its own
			if i%2 == 1 {
				errs[i] = errBoom
				continue
			}
		}
		l.m.over = true
		if errs[i] == nil {
			l.ackable = true
			o.held[place] = o.held[place] || o.sub.HoldKey
		}
	}
	return errs
}

func (o *oracle) Open(context.Context, pubsub.Subscription) (pubsub.Receiver, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.open = &oracleReceiver{oracle: o}
	return o.open, nil
}

func (o *oracle) Capabilities() pubsub.Capabilities { return o.caps }
func (o *oracle) Close() error                      { return nil }

type oracleReceiver struct {
	*oracle
	closed  bool
	running int // handlers
}

func (r *oracleReceiver) Receive(ctx context.Context, limit int) ([]pubsub.Delivery, error) {
	o := r.oracle
	o.mu.Lock()
	if o.receives++; o.receives > 1 {
		o.fault("two Receives at once")
	}
	if limit < 1 || limit > o.limit {
		o.fault("Receive of %d", limit)
	}
	o.mu.Unlock()
	defer func() {
		o.mu.Lock()
		o.receives--
		o.mu.Unlock()
	}()
	for {
		o.mu.Lock()
		got, next := o.poll(r, limit)
		o.mu.Unlock()
		if len(got) > 0 {
			return got, nil
		}
		select {
		case <-o.wake:
		case <-time.After(next):
		case <-ctx.Done():
			take(100 * time.Millisecond)
			o.mu.Lock()
			defer o.mu.Unlock()
			got, _ = o.poll(r, limit)
			return got, ctx.Err()
		}
	}
}

func (r *oracleReceiver) Settle(ctx context.Context, verdicts []pubsub.Verdict) error {
	o := r.oracle
	o.mu.Lock()
	if o.settles++; o.settles > 1 {
		o.fault("two Settles at once")
	}
	mode := o.settleMode
	o.mu.Unlock()
	defer func() {
		o.mu.Lock()
		o.settles--
		o.mu.Unlock()
	}()
	accepted, err := len(verdicts), error(nil)
	switch mode {
	case 1: // refused
		accepted, err = 0, errBoom
	case 2: // some accepted, the answer lost
		accepted, err = len(verdicts)/2, errBoom
	case 3: // all accepted, the answer lost
		err = errBoom
	case 4: // hangs
		<-ctx.Done()
		accepted, err = 0, ctx.Err()
	case 5: // late
		take(o.lease / 4)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.expire(time.Now())
	for i, v := range verdicts {
		o.settle(v, i < accepted, err == nil)
	}
	o.notify()
	return err
}

func (o *oracle) settle(v pubsub.Verdict, accepted, told bool) {
	l := v.Token.(*leased)
	current := l.m.current == l
	if v.Kind == pubsub.Ack && !l.ackable {
		o.fault("%s acknowledged without reason", l.m.ID)
	}
	if v.Kind == pubsub.Nack && v.Delay != 0 && (o.sub.Ordered || !o.caps.DelayedNack) {
		o.fault("%s: delay %v", l.m.ID, v.Delay)
	}
	if l.acked && v.Kind != pubsub.Extend {
		o.fault("%s settled again", l.m.ID)
	}
	if !accepted {
		return
	}
	l.acked = l.acked || told && v.Kind == pubsub.Ack
	switch {
	case !current:
	case v.Kind == pubsub.Ack:
		l.m.done = true
		o.takeBack(l.m)
	case v.Kind == pubsub.Nack:
		l.m.notYet = time.Now().Add(v.Delay)
		o.takeBack(l.m)
	case v.Kind == pubsub.Extend:
		l.deadline = time.Now().Add(o.lease)
	}
}

func (r *oracleReceiver) Close() error {
	o := r.oracle
	o.mu.Lock()
	defer o.mu.Unlock()
	if r.closed {
		return nil
	}
	r.closed = true
	if o.receives+o.settles > 0 {
		o.fault("closed while in use")
	}
	for n := range o.lanes {
		o.anew(n)
	}
	return nil
}

// begin checks that a message may be handled now, and says what the handler is to do.
func (o *oracle) begin(m pubsub.Message) (l *leased, what string) {
	l = o.leases[m.Header["lease"]]
	t := l.m
	o.starts++
	if l.owner.closed {
		o.fault("%s handled after Run", t.ID)
	}
	if t.foreign {
		o.fault("foreign %s handled", t.ID)
	}
	if l.running {
		o.fault("%s handled twice at once", t.ID)
	}
	l.running = true
	if o.sub.MaxAttempts > 0 && m.Attempt > 2*o.sub.MaxAttempts {
		o.fault("%s: attempt %d", t.ID, m.Attempt)
	}
	if o.sub.Ordered {
		o.inOrder(l, m)
	}
	if t.runs < len(t.script) {
		what = t.script[t.runs]
	}
	t.runs++
	return l, what
}

func (o *oracle) inOrder(l *leased, m pubsub.Message) {
	for _, other := range o.msgs[:l.m.n] {
		if other.Key == m.Key && !other.over && !other.foreign {
			o.fault("%s overtakes %s", m.ID, other.ID)
		}
	}
	for _, other := range o.leases {
		if other != l && other.running && other.m.Key == m.Key && other.epoch == l.epoch && other.owner == l.owner {
			o.fault("%s beside %s", m.ID, other.m.ID)
		}
	}
	if _, redriven := m.Header[pubsub.HeaderRedrive]; !redriven && o.held[holdPlace{m.Key, l.epoch}] {
		o.fault("%s handled though its key is held", m.ID)
	}
}

// end notes a result.
func (o *oracle) end(l *leased, err error) {
	l.running = false
	if err != nil {
		return
	}
	l.ackable, l.m.over = true, true
	if _, redriven := l.m.Header[pubsub.HeaderRedrive]; redriven {
		o.held[holdPlace{l.m.Key, l.epoch}] = false
	}
}

// unfinished lists what is not acknowledged.
func (o *oracle) unfinished() (ids []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, m := range o.msgs {
		if !m.done {
			ids = append(ids, m.ID)
		}
	}
	return ids
}

// wrong lists the faults so far.
func (o *oracle) wrong() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.faults)
}
