package natspubsub

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/backstay-go/backstay/pubsub"
)

// Open makes the durable consumer of the group, or the records of its lanes when ordered, or joins those that exist, and
// returns a member of the group. It fails with ErrMismatch when the group exists with the other value of Ordered. Start
// counts only for a new group. Of the Leases of an unordered group's members the longest holds for all, since a shorter
// one would take messages away from members that ask for more time later; in an ordered group each has its own.
func (d *Driver) Open(ctx context.Context, s pubsub.Subscription) (pubsub.Receiver, error) {
	if d.closed.Load() {
		return nil, pubsub.ErrClosed
	}
	if !isToken(s.Group) || len(s.Group) > maxName-len("+255") {
		return nil, fmt.Errorf("natspubsub %q: group %q: it must be at most %d letters, digits, '_' or '-'",
			d.cfg.Name, s.Group, maxName-len("+255"))
	}
	if s.Lease <= 0 {
		return nil, fmt.Errorf("natspubsub %q: Subscription.Lease is %s: it must be positive", d.cfg.Name, s.Lease)
	}
	t, err := d.ensureStream(ctx, s.Topic)
	if err != nil {
		return nil, err
	}
	var r pubsub.Receiver
	here, err := d.bePresent(s)
	switch {
	case err != nil:
	case s.Ordered:
		r, err = d.openLanes(ctx, s, t, here)
	default:
		if err = d.ensureGroup(ctx, s, t); err == nil {
			r = newReceiver(d, s, here)
		}
	}
	if err != nil {
		here.end()
		return nil, fmt.Errorf("natspubsub %q: group %s of topic %s: %w", d.cfg.Name, s.Group, s.Topic, err)
	}
	return r, nil
}

// ensureGroup makes the durable consumer of an unordered group, or checks the one that exists.
func (d *Driver) ensureGroup(ctx context.Context, s pubsub.Subscription, t *topic) error {
	stream := d.cfg.streamName(s.Topic)
	switch _, err := d.js.Consumer(ctx, stream, formerConsumer(s.Group, 0)); {
	case err == nil:
		return mixed(s)
	case !errors.Is(err, jetstream.ErrConsumerNotFound):
		return err
	}
	for _, temporary := range []bool{false, true} {
		if err := d.checkNoLanes(ctx, s, temporary, mixed(s)); err != nil {
			return err
		}
	}
	if err := d.ensureConsumer(ctx, stream, d.cfg.consumer(s, t), d.cfg.subject(s.Topic, "*")); err != nil {
		return fmt.Errorf("consumer %s: %w", s.Group, err)
	}
	return nil
}

// mixed is the error of an Open with the other value of Ordered than the group has.
func mixed(s pubsub.Subscription) error {
	return fmt.Errorf("%w: Subscription.Ordered is %v, found %v", ErrMismatch, s.Ordered, !s.Ordered)
}

// consumer is the durable consumer of an unordered group. The server counts deliveries but sets no limit to them: a message
// beyond the limit would be skipped silently. There is no filter, which would cost the server more than it saves: members
// drop what waits for its time.
func (c Config) consumer(s pubsub.Subscription, t *topic) jetstream.ConsumerConfig {
	cc := jetstream.ConsumerConfig{
		Name:          s.Group,
		DeliverPolicy: jetstream.DeliverNewPolicy,
		AckPolicy:     jetstream.AckExplicitPolicy,
		AckWait:       s.Lease,
		MaxDeliver:    -1,
		MaxAckPending: c.MaxPending,
	}
	if at, timed := s.StartTime(); timed {
		cc.DeliverPolicy, cc.OptStartTime = jetstream.DeliverByStartTimePolicy, &at
	} else if s.Start == "start" {
		cc.DeliverPolicy = jetstream.DeliverAllPolicy
	}
	if s.Temporary {
		cc.InactiveThreshold = max(2*s.Lease, inactiveLeast)
		cc.Replicas = t.replicas // or it would live on one server only
	} else {
		cc.Durable = s.Group
	}
	return cc
}

func (d *Driver) ensureConsumer(ctx context.Context, stream string, want jetstream.ConsumerConfig, lanes string) error {
	c, err := d.js.Consumer(ctx, stream, want.Name)
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		var errCreate error
		if _, errCreate = d.js.CreateConsumer(ctx, stream, want); errCreate == nil {
			return nil
		}
		if c, err = d.js.Consumer(ctx, stream, want.Name); err != nil { // nobody else made it meanwhile
			return errCreate
		}
	}
	if err != nil {
		return err
	}
	found := c.CachedInfo().Config
	if err := checkConsumer(want, found, lanes); err != nil {
		return err
	}
	if found.AckWait >= want.AckWait && found.MaxAckPending == want.MaxAckPending {
		return nil
	}
	found.AckWait, found.MaxAckPending = max(found.AckWait, want.AckWait), want.MaxAckPending
	_, err = d.js.UpdateConsumer(ctx, stream, found)
	return err
}

// inactiveLeast is how long a temporary group outlives the last request of its members. They ask every pullExpires.
const inactiveLeast = 30 * time.Second

// removeGroup deletes the consumer of a temporary group, unless other members wait for its messages. One that cannot be
// deleted ends by itself.
func (d *Driver) removeGroup(ctx context.Context, stream, name string) {
	c, err := d.js.Consumer(ctx, stream, name)
	if err == nil && c.CachedInfo().NumWaiting == 0 {
		_ = d.js.DeleteConsumer(ctx, stream, name)
	}
}

// checkConsumer refuses a consumer that somebody else made, and that would weaken what Open promises.
// A filter for all lanes is as good as none.
func checkConsumer(want, found jetstream.ConsumerConfig, lanes string) error {
	differs := func(field string, want, found any) error {
		return fmt.Errorf("%w: its %s must be %v, found %v", ErrMismatch, field, want, found)
	}
	switch {
	case (want.Durable == "") != (found.Durable == ""):
		return differs("Temporary", want.Durable == "", found.Durable == "")
	case found.AckPolicy != want.AckPolicy:
		return differs("ack policy", want.AckPolicy, found.AckPolicy)
	case found.FilterSubject != want.FilterSubject && (found.FilterSubject != lanes || want.FilterSubject != "") || len(found.FilterSubjects) > 0:
		return differs("filter", want.FilterSubject, append(found.FilterSubjects, found.FilterSubject))
	case found.DeliverSubject != "":
		return differs("kind", "pull", "push to "+found.DeliverSubject)
	case found.MaxDeliver > 0:
		return differs("delivery limit", "none", found.MaxDeliver)
	}
	return nil
}
