package pubsub

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"
)

const (
	// redriveGroup is the group that takes dead letters from their topic to publish them again.
	redriveGroup = "redrive"
	// redriveBatch is the number of dead letters taken at a time.
	redriveBatch = 64
	// redriveLease is long beside the calls that are made under it, each of which gets a quarter.
	redriveLease = 30 * time.Second
	// redriveFirst and redriveNext are how long a redrive waits for its first dead letter and for every further one
	// before it takes the topic for drained.
	redriveFirst = 5 * time.Second
	redriveNext  = 2 * time.Second
)

// Redrive gives dead letters of the group another chance: it moves at most limit of them, or with limit zero or less all
// that are there, from DeadLetterTopic back to topic, for this group alone; other groups do not handle them. A redriven
// message has its ID, Key, Payload and Header, without the headers of a dead letter and with
// HeaderRedrive, and its attempts begin anew.
//
// It blocks until limit is reached, the dead letters are drained, or ctx is done. It takes them for drained when the
// first does not come within 5s or a further one within 2s. Dead letters that arrive meanwhile may be moved or stay. Two
// Redrives of one group at a time share the work. Dead letters that others have read, in groups of their own, are moved
// all the same.
//
// Each message is accepted by the broker before its dead letter is acknowledged: a crash in between repeats the message
// and never loses it. The dead letters of a key keep their order if the driver has order. After an error those that were
// not moved stay. The number of moved ones is returned with any error: one that the broker gave, ctx's, ErrClosed when
// the Bus is closed meanwhile, or a *CapabilityError, since the driver must have ReplayFromStart.
func (b *Bus) Redrive(ctx context.Context, topic, group string, limit int) (int, error) {
	s := Subscription{Topic: topic, Group: group}
	if err := s.Validate(); err != nil {
		return 0, err
	}
	caps := b.Capabilities()
	s = Subscription{
		Topic: DeadLetterTopic(topic, group), Group: redriveGroup, Start: "start", Ordered: caps.Ordered,
		MaxAttempts: -1, Lease: redriveLease,
	}.withDefaults()
	if err := caps.lacks(s); err != nil {
		return 0, err
	}
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return 0, ErrClosed
	}
	b.redrives.Add(1)
	b.mu.Unlock()
	defer b.redrives.Done()

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(b.stopping, func() { cancel(ErrClosed) })()
	receiver, err := b.driver.Open(ctx, s)
	if err != nil {
		return 0, fmt.Errorf("pubsub: redrive of %q: %w", s.Topic, err)
	}
	r := &redrive{bus: b, receiver: receiver, topic: topic, group: group}
	err = r.run(ctx, limit)
	if err = errors.Join(err, receiver.Close()); err != nil { // which gives back what is not settled
		err = fmt.Errorf("pubsub: redrive of %q: %w", s.Topic, err)
	}
	return r.moved, err
}

// redrive is one call of Redrive.
type redrive struct {
	bus          *Bus
	receiver     Receiver
	topic, group string
	moved        int
	leased       time.Time // when the leases of the batch last began
}

func (r *redrive) run(ctx context.Context, limit int) error {
	wait := redriveFirst
	for limit <= 0 || r.moved < limit {
		room := redriveBatch
		if limit > 0 {
			room = min(room, limit-r.moved)
		}
		batch, err := r.receive(ctx, room, wait)
		if len(batch) == 0 {
			return err
		}
		for len(batch) > 0 && ctx.Err() == nil {
			n := distinctKeys(batch)
			if err := r.move(ctx, batch[:n], batch[n:]); err != nil {
				return err
			}
			batch = batch[n:]
		}
		wait = redriveNext
	}
	return nil
}

// receive returns nothing, and no error, when none came for the time of wait.
func (r *redrive) receive(ctx context.Context, room int, wait time.Duration) ([]Delivery, error) {
	waiting, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	batch, err := r.receiver.Receive(waiting, room)
	r.leased = time.Now()
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case len(batch) == 0 && waiting.Err() != nil:
		return nil, nil
	case len(batch) == 0 && err == nil:
		return nil, errors.New("the driver delivered nothing")
	}
	return batch, err
}

// distinctKeys is the length of the longest start of batch in which no key comes twice. Published in one call, they
// can fail one by one without disturbing the order of a key.
func distinctKeys(batch []Delivery) int {
	seen := make(map[string]bool, len(batch))
	for i := range batch {
		key := batch[i].Key
		if key != "" && seen[key] {
			return i
		}
		seen[key] = true
	}
	return len(batch)
}

// move publishes some dead letters and acknowledges those that were accepted, also when ctx has ended meanwhile. The
// leases of the rest are extended in time, since no call takes much longer than a quarter of one.
func (r *redrive) move(ctx context.Context, letters, rest []Delivery) error {
	verdicts, failed := r.publish(ctx, letters)
	accepted := len(verdicts)
	extended := time.Now()
	if failed == nil && extended.Sub(r.leased) > redriveLease/4 {
		for i := range rest {
			verdicts = append(verdicts, Verdict{Token: rest[i].Token, Kind: Extend})
		}
		r.leased = extended
	}
	if len(verdicts) == 0 {
		return failed
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), redriveLease/4)
	defer cancel()
	if err := r.receiver.Settle(ctx, verdicts); err != nil {
		return errors.Join(failed, fmt.Errorf("%d messages were published and not acknowledged, and will be again: %w", accepted, err))
	}
	r.moved += accepted
	return failed
}

// publish returns an Ack for every dead letter that was accepted.
func (r *redrive) publish(ctx context.Context, letters []Delivery) ([]Verdict, error) {
	msgs := make([]Message, len(letters))
	for i := range letters {
		msgs[i] = r.message(letters[i].Message)
	}
	bounded, cancel := context.WithTimeout(ctx, redriveLease/4)
	defer cancel()
	failed := publishError(msgs, r.bus.send(bounded, msgs, r.bus.capabilities(), time.Now()))
	refused := make(map[int]bool)
	if pe, ok := failed.(*PublishError); ok {
		for _, f := range pe.Failed {
			refused[f.Index] = true
		}
		failed = errors.Join(context.Cause(ctx), failed)
	}
	acks := make([]Verdict, 0, len(letters))
	for i := range letters {
		if !refused[i] {
			acks = append(acks, Verdict{Token: letters[i].Token, Kind: Ack})
		}
	}
	return acks, failed
}

// message is what goes back for a dead letter.
func (r *redrive) message(letter Message) Message {
	header := maps.Clone(letter.Header)
	if header == nil {
		header = make(Header, 1)
	}
	maps.DeleteFunc(header, func(name, _ string) bool { return strings.HasPrefix(name, deadPrefix) })
	header[HeaderRedrive] = r.group + "/" + newID()
	letter.Topic, letter.Header = r.topic, header
	letter.Attempt, letter.DeliverAt = 0, time.Time{}
	return letter
}
