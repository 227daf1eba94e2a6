package rabbitpubsub

import (
	"context"
	"fmt"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"
	"golang.org/x/sync/semaphore"

	"github.com/backstay-go/backstay/pubsub"
)

// windowStep is how many places of the window a call takes at a time.
const windowStep = 64

// publisher sends messages on one channel, which the calls of Publish share, and settles them as the broker confirms.
type publisher struct {
	d       *Driver
	link    *link
	window  *semaphore.Weighted
	opening chan struct{} // capacity 1: held while a channel is opened or a topic declared

	mu      sync.Mutex // keeps the order of what is sent the order of what is noted
	encoder *encoder
	outlet  *outlet // nil while there is none

	wg sync.WaitGroup
}

func newPublisher(d *Driver, l *link) *publisher {
	return &publisher{
		d: d, link: l, window: semaphore.NewWeighted(int64(d.cfg.Window)), opening: make(chan struct{}, 1),
		encoder: newEncoder(d.cfg),
	}
}

// session is the connection in use, or nil.
func (p *publisher) session() *session {
	p.link.mu.Lock()
	defer p.link.mu.Unlock()
	return p.link.current
}

// send sends the messages of c. It returns how many, and why not the others.
func (p *publisher) send(l *limit, c *call) (sent int, err error) {
	for sent < len(c.msgs) {
		if err := l.Err(); err != nil {
			return sent, err
		}
		n := min(windowStep, len(c.msgs)-sent, p.d.cfg.Window)
		if err := p.acquire(l, int64(n)); err != nil {
			return sent, err
		}
		more, err := p.sendSome(l, c, sent, n)
		p.window.Release(int64(n - more))
		sent += more
		if err != nil {
			return sent, err
		}
	}
	return sent, nil
}

// acquire waits for room in the window.
func (p *publisher) acquire(l *limit, n int64) error {
	if p.window.TryAcquire(n) {
		return nil
	}
	ctx, cancel := l.as()
	defer cancel()
	if err := p.window.Acquire(ctx, n); err != nil {
		return fmt.Errorf("waiting for room in the window: %w", context.Cause(ctx))
	}
	return nil
}

// sendSome sends up to n messages, for which there is room in the window, on one channel.
func (p *publisher) sendSome(l *limit, c *call, from, n int) (sent int, err error) {
	o, err := p.ready(l, c.msgs[from].Topic)
	if err != nil {
		return 0, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := from; i < from+n; i++ {
		m := &c.msgs[i]
		if !o.knows(m.Topic) { // declared before the next round
			return sent, nil
		}
		if sent > 0 && o.congested() {
			return sent, nil
		}
		if err := o.publish(p, c, i); err != nil {
			return sent, p.ignoreLoss(o, err)
		}
		sent++
	}
	return sent, nil
}

// ignoreLoss makes an error that only means another channel is needed nil: the message was not sent.
func (p *publisher) ignoreLoss(o *outlet, err error) error {
	if o.ch.IsClosed() {
		if p.outlet == o {
			p.outlet = nil
		}
		return nil
	}
	return err
}

// ready waits for a channel that takes messages for the topic.
func (p *publisher) ready(l *limit, topic string) (*outlet, error) {
	p.mu.Lock()
	o := p.outlet
	p.mu.Unlock()
	if o != nil && o.alive() && o.knows(topic) && !o.congested() {
		return o, nil
	}
	ctx, cancel := l.as()
	defer cancel()
	o, err := p.prepare(ctx, topic)
	if err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("%w (%w)", context.Cause(ctx), err)
		}
		return nil, err
	}
	return o, o.relief(ctx)
}

// prepare opens a channel if need be, and declares the topic on its connection.
func (p *publisher) prepare(ctx context.Context, topic string) (*outlet, error) {
	select {
	case p.opening <- struct{}{}:
		defer func() { <-p.opening }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	p.mu.Lock()
	o := p.outlet
	p.mu.Unlock()
	if o == nil || !o.alive() {
		s, err := p.link.get(ctx)
		if err != nil {
			return nil, err
		}
		if o, err = p.open(ctx, s); err != nil {
			return nil, err
		}
		p.mu.Lock()
		p.outlet = o
		p.mu.Unlock()
	}
	if o.knows(topic) {
		return o, nil
	}
	if err := p.d.declare(ctx, o.session, func(c declarer) error { return c.topic(topic) }); err != nil {
		return nil, err
	}
	o.topics.Store(topic, struct{}{})
	return o, nil
}

// outlet is a channel in confirm mode.
type outlet struct {
	session   *session
	ch        *amqp.Channel
	topics    sync.Map // topics that were declared on the connection
	mandatory bool
	closed    chan *amqp.Error
	confirms  chan amqp.Confirmation
	returns   chan amqp.Return

	mu      sync.Mutex
	pending []sent // in the order of sending; those before head are confirmed
	head    int
	dead    bool

	returned map[returnedKey]returnedCount // of the goroutine that settles alone
}

// sent is a message that the broker has not confirmed yet.
type sent struct {
	call  *call
	index int
}

// returnedKey names a message that the broker has returned, just before it confirms it.
type returnedKey struct{ exchange, id string }

type returnedCount struct {
	n      int
	reason string
}

// open makes a channel and settles what is sent on it until it ends.
func (p *publisher) open(ctx context.Context, s *session) (*outlet, error) {
	ch, err := s.channel(ctx)
	if err != nil {
		return nil, err
	}
	window := p.d.cfg.Window + windowStep // so that the client never waits for us
	o := &outlet{
		session: s, ch: ch, mandatory: p.d.cfg.Unroutable == "refuse",
		closed:   ch.NotifyClose(make(chan *amqp.Error, 1)),
		confirms: ch.NotifyPublish(make(chan amqp.Confirmation, window)),
		returns:  ch.NotifyReturn(make(chan amqp.Return, window)),
		returned: make(map[returnedKey]returnedCount),
	}
	if err := awaitDone(ctx, func() error { return ch.Confirm(false) }); err != nil {
		go func() { _ = ch.Close() }()
		return nil, err
	}
	p.wg.Go(func() { o.settleAll(p) })
	return o, nil
}

func (o *outlet) alive() bool { return !o.ch.IsClosed() }

func (o *outlet) knows(topic string) bool {
	_, ok := o.topics.Load(topic)
	return ok
}

// congested reports whether the broker takes no messages for the moment.
func (o *outlet) congested() bool {
	return o.session.blocked.Load() != nil || o.session.net.full() != nil
}

// relief waits until the outlet is not congested.
func (o *outlet) relief(ctx context.Context) error {
	for {
		b, full := o.session.blocked.Load(), o.session.net.full()
		var over chan struct{}
		switch {
		case b != nil:
			over = b.over
		case full == nil:
			return nil
		}
		select {
		case <-over:
		case <-full:
		case <-o.session.lost:
			return nil // another channel is needed
		case <-ctx.Done():
			if b != nil {
				return fmt.Errorf("%w (%s): %w", ErrBlocked, b.reason, context.Cause(ctx))
			}
			return fmt.Errorf("the connection takes no bytes: %w", context.Cause(ctx))
		}
	}
}

// publish sends message i of c. After an error it was not sent: the broker takes no message of which the end is missing.
func (o *outlet) publish(p *publisher, c *call, i int) error {
	m := &c.msgs[i]
	if !o.push(sent{c, i}) {
		return amqp.ErrClosed
	}
	exchange, key := p.d.route(m)
	if _, err := o.ch.PublishWithDeferredConfirm(exchange, key, o.mandatory, false, p.encoder.encode(m)); err != nil {
		if o.pop() {
			return err
		}
	}
	return nil
}

func (o *outlet) push(s sent) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.dead {
		return false
	}
	if o.head > 0 && len(o.pending) == cap(o.pending) {
		n := copy(o.pending, o.pending[o.head:])
		clear(o.pending[n:])
		o.pending, o.head = o.pending[:n], 0
	}
	o.pending = append(o.pending, s)
	return true
}

// pop takes back the last one. It reports false if the channel has died meanwhile, and the message is settled.
func (o *outlet) pop() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.dead {
		return false
	}
	o.pending = o.pending[:len(o.pending)-1]
	return true
}

// settleAll settles messages in the order of sending, until the channel ends: what is left then is in doubt.
func (o *outlet) settleAll(p *publisher) {
	for confirms := o.confirms; confirms != nil; {
		select {
		case r, ok := <-o.returns:
			if !ok {
				o.returns = nil
				continue
			}
			o.noteReturn(r)
		case c, ok := <-confirms:
			if !ok {
				confirms = nil
				continue
			}
			o.drainReturns()
			o.settle(p, c.Ack)
		}
	}
	cause := error(amqp.ErrClosed)
	if err := <-o.closed; err != nil {
		cause = err
	}
	o.mu.Lock()
	o.dead = true
	left := o.pending[o.head:]
	o.pending, o.head = nil, 0
	o.mu.Unlock()
	for _, s := range left {
		s.call.settle(s.index, &lostError{cause})
	}
	p.window.Release(int64(len(left)))
}

// drainReturns notes what was returned before a confirmation: the client has passed it on before.
func (o *outlet) drainReturns() {
	for {
		select {
		case r, ok := <-o.returns:
			if !ok {
				o.returns = nil
				return
			}
			o.noteReturn(r)
		default:
			return
		}
	}
}

func (o *outlet) noteReturn(r amqp.Return) {
	id, _ := r.Headers[headerID].(string)
	k := returnedKey{r.Exchange, id}
	o.returned[k] = returnedCount{o.returned[k].n + 1, r.ReplyText}
}

func (o *outlet) settle(p *publisher, ack bool) {
	o.mu.Lock()
	if o.head == len(o.pending) { // a confirmation of nothing
		o.mu.Unlock()
		return
	}
	s := o.pending[o.head]
	o.pending[o.head] = sent{}
	if o.head++; o.head == len(o.pending) {
		o.pending, o.head = o.pending[:0], 0
	}
	o.mu.Unlock()
	var err error
	if !ack {
		err = fmt.Errorf("%w: %w", pubsub.ErrInDoubt, ErrRejected)
	}
	if len(o.returned) > 0 {
		exchange, _ := p.d.route(&s.call.msgs[s.index])
		k := returnedKey{exchange, s.call.msgs[s.index].ID}
		if r := o.returned[k]; r.n > 0 {
			err = fmt.Errorf("%w (%s)", ErrUnroutable, r.reason)
			if r.n--; r.n == 0 {
				delete(o.returned, k)
			} else {
				o.returned[k] = r
			}
		}
	}
	s.call.settle(s.index, err)
	p.window.Release(1)
}

// close ends publishing; the link is closed before.
func (p *publisher) close() { p.wg.Wait() }
