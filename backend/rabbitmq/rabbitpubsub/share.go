package rabbitpubsub

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// The broker gives a lane to the member that consumes its queue for the longest time. So that all members of an ordered
// group have some, one that has more than its share gives lanes up, and stands in line behind the others again.

const (
	// shareEvery is how often a member looks at how many there are.
	shareEvery = time.Second
	// yieldMost is how long a lane may take to be given up when handlers may take for ever.
	yieldMost = 30 * time.Second
	// yieldRest is how many times as long a lane is left alone that could not be given up.
	yieldRest = 10
)

// shareLanes keeps the member's share of the lanes until the receiver is closed. Whenever the broker does not say how many
// members there are, all lanes stay where they are.
func (r *receiver) shareLanes() {
	roll := &roll{r: r, members: r.d.cfg.members(r.sub.Topic, r.sub.Group), wanting: r.d.cfg.wanting(r.sub.Topic, r.sub.Group)}
	defer roll.leave()
	ticker := time.NewTicker(shareEvery)
	defer ticker.Stop()
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-ticker.C:
		}
		if !r.isActive() {
			roll.leave()
			continue
		}
		n, err := roll.call()
		if err == nil {
			err = roll.want(r.share(n))
		}
		if err != nil {
			roll.leave()
		}
	}
}

func (r *receiver) isActive() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.active
}

// share gives up what is too much, and reports whether the member has too few lanes. That a lane is its own it knows only
// of those that have had a message. Where the lanes cannot be divided evenly, a member may have one more than others, but
// not while somebody has too few.
func (r *receiver) share(n attendance) (wants bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now, held := r.now(), r.heldLanes()
	least := len(r.sources) / n.members
	surplus := len(held) - (len(r.sources)+n.members-1)/n.members
	if surplus <= 0 && n.wanting > 0 && len(held) > least && rand.N(2) == 0 { // others may think the same
		surplus = 1
	}
	slices.SortFunc(held, func(a, b *stream) int { return cmp.Compare(a.open, b.open) })
	for _, st := range held[:max(surplus, 0)] {
		if now >= st.src.kept {
			st.yield(now + r.yieldTime())
		}
	}
	return len(held) < least
}

// heldLanes are the streams that have had messages, but for those that are being given up. It ends what takes too long.
func (r *receiver) heldLanes() (held []*stream) {
	now := r.now()
	for _, src := range r.sources {
		st := src.stream
		switch {
		case st == nil || st.isDead() || !st.used():
		case !st.yielding:
			held = append(held, st)
		case st.open == 0: // the broker has had a while to send more
			src.begin()
		case now > st.yieldUntil:
			st.keep()
			src.kept = now + yieldRest*r.yieldTime()
		}
	}
	return held
}

// yieldTime is how long a lane may take to be given up: as long as a handler.
func (r *receiver) yieldTime() time.Duration {
	if r.sub.HandleTimeout > 0 {
		return r.sub.HandleTimeout
	}
	return yieldMost
}

// yield begins to give up the lane: what has come of it is handled, and not acknowledged before all of it is, so that the
// broker soon sends no more. Given back instead it would count as an attempt.
func (st *stream) yield(until time.Duration) {
	st.tell()
	st.yielding, st.yieldUntil = true, until
}

// handOver gives up the lane if all that the broker sends unasked has come and is handled. It must not learn of that before
// it has removed the consumer (see flow.end), since it would send more.
func (st *stream) handOver() {
	if st.open > 0 || len(st.acking) < st.prefetch {
		return
	}
	st.dead.Store(true)
	st.src.wanted = st.src.r.calling
	st.src.stir()
}

// keep ends the yielding, and tells the broker of the acknowledgements.
func (st *stream) keep() {
	if !st.yielding {
		return
	}
	st.yielding = false
	st.src.r.untold += len(st.acking)
	st.tell()
}

// roll is how the members of a group see how many they are: each consumes a queue that gets no messages, and one that has
// too few lanes another. The broker tells the number of a queue's consumers.
type roll struct {
	r                *receiver
	members, wanting string // queues
	ch               *amqp.Channel
	wants            bool // the member consumes the other queue
}

// attendance is what a call of the roll finds.
type attendance struct{ members, wanting int }

func (m *roll) call() (n attendance, err error) {
	ctx, cancel := context.WithTimeout(m.r.ctx, callTimeout)
	defer cancel()
	if m.ch == nil {
		if err := m.enrol(ctx); err != nil {
			return n, err
		}
	}
	ch := m.ch
	return await(ctx, func() (n attendance, err error) {
		if n.members, err = m.count(ch, m.members); err != nil {
			return n, err
		}
		n.members = max(n.members, 1)
		n.wanting, err = m.count(ch, m.wanting)
		return n, err
	}, nil)
}

func (m *roll) enrol(ctx context.Context) error {
	sess, err := m.r.link.get(ctx)
	if err != nil {
		return err
	}
	ch, err := sess.channel(ctx)
	if err != nil {
		return err
	}
	m.ch = ch
	return awaitDone(ctx, func() error {
		if _, err := m.count(ch, m.members); err != nil {
			return err
		}
		return consumeNothing(ch, m.members)
	})
}

// count is the number of consumers of a queue, which is made if it is not there.
func (m *roll) count(ch *amqp.Channel, queue string) (int, error) {
	declare := ch.QueueDeclare
	if m.r.d.cfg.Topology != "declare" {
		declare = ch.QueueDeclarePassive
	}
	q, err := declare(queue, true, false, false, false, amqp.Table{"x-queue-type": "classic", "x-expires": int64(temporaryExpires)})
	return q.Consumers, err
}

// consumeNothing makes a consumer of that name for a queue that gets no messages.
func consumeNothing(ch *amqp.Channel, queue string) error {
	_, err := ch.Consume(queue, queue, true, false, false, false, nil)
	return err
}

// want says whether the member has too few lanes.
func (m *roll) want(wants bool) error {
	if wants == m.wants {
		return nil
	}
	m.wants = wants
	ctx, cancel := context.WithTimeout(m.r.ctx, callTimeout)
	defer cancel()
	ch := m.ch
	return awaitDone(ctx, func() error {
		if wants {
			return consumeNothing(ch, m.wanting)
		}
		return ch.Cancel(m.wanting, false)
	})
}

// leave takes the member off the roll.
func (m *roll) leave() {
	if m.ch == nil {
		return
	}
	ctx, cancel := context.WithTimeout(m.r.patience, callTimeout)
	defer cancel()
	_ = awaitDone(ctx, m.ch.Close)
	m.ch, m.wants = nil, false
}
