package natspubsub

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/backstay-go/backstay/pubsub"
)

// Open makes the durable consumer of the group, or one per lane when ordered, or joins those that exist, and returns a
// member of the group. It fails with ErrMismatch when the group exists with the other value of Ordered. Start counts
// only for a new group. Of the Leases of a group's members the longest holds for all, since a shorter one would take
// messages away from members that ask for more time later.
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
	if s.Ordered {
		r, err := d.openLanes(ctx, s, t)
		if err != nil {
			return nil, fmt.Errorf("natspubsub %q: group %s of topic %s: %w", d.cfg.Name, s.Group, s.Topic, err)
		}
		return r, nil
	}
	if err := d.ensureGroup(ctx, s, t); err != nil {
		return nil, fmt.Errorf("natspubsub %q: group %s of topic %s: %w", d.cfg.Name, s.Group, s.Topic, err)
	}
	return newReceiver(d, s), nil
}

// consumerNames lists the durable consumers of a group. Groups have no '+', so that names never meet.
func (c Config) consumerNames(group string, ordered bool) []string {
	if !ordered {
		return []string{group}
	}
	names := make([]string, c.Lanes)
	for lane := range names {
		names[lane] = group + "+" + strconv.Itoa(lane)
	}
	return names
}

func (d *Driver) ensureGroup(ctx context.Context, s pubsub.Subscription, t *topic) error {
	stream := d.cfg.streamName(s.Topic)
	other := d.cfg.consumerNames(s.Group, !s.Ordered)[0]
	switch _, err := d.js.Consumer(ctx, stream, other); {
	case err == nil:
		return fmt.Errorf("%w: Subscription.Ordered is %v, found %v", ErrMismatch, s.Ordered, !s.Ordered)
	case !errors.Is(err, jetstream.ErrConsumerNotFound):
		return err
	}
	for lane, name := range d.cfg.consumerNames(s.Group, s.Ordered) {
		want := d.cfg.consumer(s, t, name, lane)
		if err := d.ensureConsumer(ctx, stream, want, d.cfg.subject(s.Topic, "*")); err != nil {
			return fmt.Errorf("consumer %s: %w", name, err)
		}
	}
	return nil
}

// consumer is the durable consumer of one lane, or of the whole topic when unordered. The server counts deliveries but
// sets no limit to them: a message beyond the limit would be skipped silently.
func (c Config) consumer(s pubsub.Subscription, t *topic, name string, lane int) jetstream.ConsumerConfig {
	cc := jetstream.ConsumerConfig{
		Name:          name,
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
		cc.Durable = name
	}
	if s.Ordered {
		cc.FilterSubject = t.subjects[lane]
		cc.MaxAckPending = 1 // the lane's next message is sent when this one is settled, whoever asks
	}
	// Unordered there is no filter, which would cost the server more than it saves: members drop what waits for its time.
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

// removeGroup deletes the consumers of a temporary group, unless other members wait for its messages. One that cannot
// be deleted ends by itself.
func (d *Driver) removeGroup(ctx context.Context, stream string, consumers []string) {
	for _, name := range consumers {
		c, err := d.js.Consumer(ctx, stream, name)
		if err == nil && c.CachedInfo().NumWaiting == 0 {
			_ = d.js.DeleteConsumer(ctx, stream, name)
		}
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
	case want.MaxAckPending == 1 && found.MaxAckPending != 1:
		return differs("max ack pending", 1, found.MaxAckPending)
	}
	return nil
}
