package rabbitpubsub

import (
	"context"
	"fmt"
	"strconv"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	// arriveMost is the number of messages that are taken in at a time.
	arriveMost = 64
	// againFirst and againMost are the waits before a queue that could not be consumed is tried again.
	againFirst = 20 * time.Millisecond
	againMost  = time.Second
	// callTimeout is how long the broker may take to answer a call. One that has just been started forgets to answer some
	// for half a minute: they are made again then, on another channel.
	callTimeout = 5 * time.Second
)

// source consumes one queue, on one stream after the other.
type source struct {
	r       *receiver
	lane    int
	queue   string
	control chan struct{} // capacity 1: the fields below have changed

	// Guarded by the receiver's mutex.
	stream   *stream // nil while there is none
	epoch    uint64
	wanted   bool
	kept     time.Duration // until when the lane is not given up
	lostAcks int           // acknowledgements on a stream that was lost, while there is no other
}

func (s *source) stir() {
	select {
	case s.control <- struct{}{}:
	default:
	}
}

// resume has the source consume. The caller holds the mutex.
func (s *source) resume(revived bool) {
	if !s.wanted || revived {
		s.wanted = true
		s.stir()
	}
}

// begin ends the stream: the queue delivers what is not settled again, from the first on, to this member once it
// receives, or to another. The caller holds the mutex.
func (s *source) begin() {
	s.kill()
	s.wanted = s.r.calling
	s.stir()
}

// kill makes everything of the stream stale. The caller holds the mutex.
func (s *source) kill() {
	st := s.stream
	if st == nil || st.isDead() {
		return
	}
	st.keep()
	st.tell()
	st.dead.Store(true)
	s.r.buf.drop(func(h *held) bool { return h.stream == st })
}

func (s *source) run() {
	for wait := againFirst; ; {
		if !s.awaitWanted() {
			return
		}
		began, err := s.consume()
		if s.r.ctx.Err() != nil {
			return
		}
		if err == nil || began {
			wait = againFirst
		}
		if err == nil {
			continue
		}
		if isPermanent(err) {
			s.r.fail(err)
			return
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-s.r.ctx.Done():
			timer.Stop()
			return
		}
		wait = min(2*wait, againMost)
	}
}

// awaitWanted reports false when the receiver is closed.
func (s *source) awaitWanted() bool {
	for {
		s.r.mu.Lock()
		wanted := s.wanted
		s.r.mu.Unlock()
		if wanted {
			return s.r.ctx.Err() == nil
		}
		select {
		case <-s.control:
		case <-s.r.ctx.Done():
			return false
		}
	}
}

// consume is the life of a stream. It returns nil when it was ended on purpose, and reports whether it began.
func (s *source) consume() (began bool, err error) {
	sess, err := s.r.link.get(s.r.ctx)
	if err != nil {
		return false, err
	}
	if err := s.r.restore(sess); err != nil {
		return false, err
	}
	ch, err := sess.channel(s.r.ctx)
	if err != nil {
		return false, err
	}
	f := &flow{source: s, closed: ch.NotifyClose(make(chan *amqp.Error, 1)), decoder: decoder{topic: s.r.sub.Topic}}
	s.r.mu.Lock()
	s.epoch++
	f.stream = newStream(s, sess, ch, s.epoch)
	s.stream = f.stream
	s.lostAcks = 0
	s.r.mu.Unlock()
	err = f.adjust()
	if err == nil {
		err = f.run()
	}
	f.end()
	return true, explain(err)
}

// flow is what the goroutine of a source knows of its stream.
type flow struct {
	*source
	stream     *stream
	closed     chan *amqp.Error
	deliveries <-chan amqp.Delivery // nil while nothing is consumed
	tag        string               // of the consumer
	tags       int
	prefetch   int
	batch      []*held
	spare      []held // made together
	decoder    decoder
}

// spareMost is how many messages are made together.
const spareMost = 16

// run takes in messages until the stream ends: nil when that was wanted.
func (f *flow) run() error {
	for {
		select {
		case d, ok := <-f.deliveries:
			if !ok {
				return f.cause()
			}
			f.arrive(&d, f.deliveries)
		case <-f.control:
			if f.stream.isDead() {
				return nil
			}
			if err := f.adjust(); err != nil {
				return err
			}
		case err := <-f.closed:
			f.closed = nil
			if err != nil {
				return err
			}
			return errLost
		case <-f.r.ctx.Done():
			return nil
		}
	}
}

// cause says why the deliveries ended.
func (f *flow) cause() error {
	if f.stream.ch.IsClosed() {
		select {
		case err := <-f.closed:
			f.closed = nil
			if err != nil {
				return err
			}
		case <-f.r.ctx.Done():
		}
		return errLost
	}
	if f.r.sub.Temporary {
		f.r.restoring.Lock()
		f.r.restored = nil // made anew
		f.r.restoring.Unlock()
		return errLost
	}
	return fmt.Errorf("queue %s was deleted while it was consumed: %w", f.queue, ErrMissing)
}

// arrive takes in a message and those that wait behind it.
func (f *flow) arrive(d *amqp.Delivery, more <-chan amqp.Delivery) {
	f.batch = append(f.batch[:0], f.held(d))
	for len(f.batch) < arriveMost {
		select {
		case next, ok := <-more:
			if ok {
				f.batch = append(f.batch, f.held(&next))
				continue
			}
		default:
		}
		break
	}
	f.r.arrive(f.batch)
	clear(f.batch)
}

func (f *flow) held(d *amqp.Delivery) *held {
	if len(f.spare) == 0 {
		f.spare = make([]held, spareMost)
	}
	h := &f.spare[0]
	f.spare = f.spare[1:]
	h.stream, h.tag, h.msg = f.stream, d.DeliveryTag, f.decoder.decode(d)
	return h
}

// adjust makes the consumer what it is to be: absent, or with a prefetch. It also confirms acknowledgements.
func (f *flow) adjust() error {
	r := f.r
	r.mu.Lock()
	active, prefetch := r.active, r.pace.prefetch()
	confirm := !f.stream.yielding && f.stream.unconfirmed > 0 && r.now()-f.stream.confirmed > confirmEvery
	r.mu.Unlock()
	if r.sub.Ordered {
		active, prefetch = true, min(r.sub.LaneDepth, maxPrefetch)
	}
	switch old := f.deliveries; {
	case !active && old != nil:
		if err := f.cancel(f.tag, old); err != nil {
			return err
		}
		f.giveBack(0)
	case active && (old == nil || prefetch != f.prefetch):
		return f.change(prefetch)
	case confirm:
		return f.confirm()
	}
	return nil
}

// call makes a call of the client.
func (f *flow) call(do func() error) error {
	ctx, cancel := context.WithTimeout(f.r.patience, callTimeout)
	defer cancel()
	return awaitDone(ctx, do)
}

// change consumes with another prefetch. The old consumer, if there is one, ends once the new one is there.
func (f *flow) change(prefetch int) error {
	old, tag, surplus := f.deliveries, f.tag, prefetch < f.prefetch
	f.tags++
	f.tag, f.prefetch = "backstay-"+strconv.Itoa(f.tags), prefetch
	f.r.mu.Lock()
	f.stream.prefetch = prefetch
	f.r.mu.Unlock()
	var err error
	ctx, cancel := context.WithTimeout(f.r.patience, callTimeout)
	defer cancel()
	f.deliveries, err = await(ctx, func() (<-chan amqp.Delivery, error) {
		if err := f.stream.ch.Qos(prefetch, 0, false); err != nil {
			return nil, err
		}
		return f.stream.ch.Consume(f.queue, f.tag, false, false, false, false, nil)
	}, nil)
	if err != nil || old == nil {
		return err
	}
	if err := f.cancel(tag, old); err != nil {
		return err
	}
	if surplus {
		f.giveBack(prefetch)
	}
	return nil
}

// cancel ends a consumer and takes in what it still brings.
func (f *flow) cancel(tag string, deliveries <-chan amqp.Delivery) error {
	if f.tag == tag {
		f.deliveries = nil
	}
	if err := f.call(func() error { return f.stream.ch.Cancel(tag, false) }); err != nil {
		return err
	}
	for d := range deliveries {
		f.arrive(&d, deliveries)
	}
	return nil
}

// giveBack gives back what has arrived, but for so many.
func (f *flow) giveBack(but int) {
	r := f.r
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	r.buf.drop(func(h *held) bool {
		if n++; n <= but || h.state != arrived {
			return false
		}
		f.stream.requeue(h)
		return true
	})
}

// confirm makes a round trip behind the acknowledgements.
func (f *flow) confirm() error {
	f.r.mu.Lock()
	f.stream.tell()
	n := f.stream.unconfirmed
	f.r.mu.Unlock()
	if err := f.call(func() error { return f.stream.ch.Qos(f.prefetch, 0, false) }); err != nil {
		return err
	}
	f.r.mu.Lock()
	defer f.r.mu.Unlock()
	f.stream.unconfirmed -= n
	f.stream.confirmed = f.r.now()
	return nil
}

// end closes the channel, after a round trip that confirms its acknowledgements.
func (f *flow) end() {
	f.r.mu.Lock()
	handed := f.stream.yielding && f.stream.isDead()
	f.r.mu.Unlock()
	if handed {
		_ = f.cancel(f.tag, f.deliveries)
	}
	f.r.mu.Lock()
	f.stream.keep()
	f.kill()
	f.r.mu.Unlock()
	if f.stream.unconfirmed > 0 {
		_ = f.confirm() // what is not confirmed is counted
	}
	_ = f.call(f.stream.ch.Close)
	f.r.mu.Lock()
	defer f.r.mu.Unlock()
	f.lostAcks = f.stream.unconfirmed
	if f.source.stream == f.stream {
		f.source.stream = nil
	}
}
