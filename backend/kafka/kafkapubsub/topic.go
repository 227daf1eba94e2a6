package kafkapubsub

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/backstay-go/backstay/pubsub"
)

// ErrNoTopic is wrapped by the error of a Publish or Open whose topic does not exist, with Config.Topics "check".
var ErrNoTopic = errors.New("kafkapubsub: no such topic")

// maxTopic is the longest name of a topic that Kafka allows.
const maxTopic = 249

// groupID is the name of the Kafka group of (topic, group): each topic has groups of its own. Groups have no dots.
func (c Config) groupID(topic, group string) string { return c.Prefix + group + "." + topic }

// ensureTopic makes the topic, or checks that it exists, once per driver.
func (d *Driver) ensureTopic(ctx context.Context, topic string) error {
	if _, known := d.topics.Load(topic); known {
		return nil
	}
	name := d.cfg.Prefix + topic
	if len(name) > maxTopic {
		return fmt.Errorf("the name has %d bytes with its prefix: it must have at most %d", len(name), maxTopic)
	}
	found, err := d.admin.ListTopics(ctx, name)
	if err == nil {
		err = found[name].Err
	}
	if errors.Is(err, kerr.UnknownTopicOrPartition) {
		err = d.createTopic(ctx, name)
	}
	if err != nil {
		return err
	}
	d.topics.Store(topic, struct{}{})
	return nil
}

func (d *Driver) createTopic(ctx context.Context, name string) error {
	if d.cfg.Topics == "check" {
		return ErrNoTopic
	}
	replicas := int16(-1) // as the cluster says
	if d.cfg.Replicas > 0 {
		replicas = int16(d.cfg.Replicas)
	}
	made, err := d.admin.CreateTopic(ctx, int32(d.cfg.Partitions), replicas, nil, name)
	if errors.Is(err, kerr.TopicAlreadyExists) { // made by another service meanwhile
		return nil
	}
	if errors.Is(err, kerr.InvalidTopicException) {
		return fmt.Errorf("%w (%s; names that differ in '.' and '_' only collide)", err, made.ErrMessage)
	}
	return err
}

// Open makes the topic, the group's dead-letter topic, and the group, and returns a member of the group, which joins with
// its first Receive. Start counts only for a group that has not committed anything.
func (d *Driver) Open(ctx context.Context, s pubsub.Subscription) (pubsub.Receiver, error) {
	switch {
	case d.closed.Load():
		return nil, pubsub.ErrClosed
	case s.Temporary:
		return nil, &pubsub.CapabilityError{Driver: "kafka", Capability: "Temporary"}
	case s.Lease <= 0:
		return nil, d.errorf(s.Topic, fmt.Errorf("Subscription.Lease is %s: it must be positive", s.Lease))
	}
	for _, topic := range []string{s.Topic, pubsub.DeadLetterTopic(s.Topic, s.Group)} {
		if err := d.ensureTopic(ctx, topic); err != nil {
			return nil, d.errorf(topic, err)
		}
	}
	if err := d.pin(ctx, s); err != nil {
		return nil, fmt.Errorf("kafkapubsub %q: group %s of topic %s: %w", d.cfg.Name, s.Group, s.Topic, err)
	}
	return newReceiver(d, s), nil
}

// pin makes the group begin where it is to begin, by a commit for every partition. A group that has committed anything
// exists: a partition without a commit was added since, and is read from its start.
//
// Two that pin the same new group at a time do no harm: positions are looked up before the group is, so those of the one
// who comes late are no later than the moment at which the other's Open returned. And once the group has members, the
// broker refuses commits from outside.
func (d *Driver) pin(ctx context.Context, s pubsub.Subscription) error {
	for {
		err := d.tryPin(ctx, s)
		// A topic that was made just now is not known everywhere yet; and a group that refuses commits from outside has got
		// members meanwhile, who have pinned it.
		if err == nil || !errors.Is(err, kerr.UnknownMemberID) && !kerr.IsRetriable(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (d *Driver) tryPin(ctx context.Context, s pubsub.Subscription) error {
	starts, err := d.starts(ctx, s)
	if err != nil {
		return err
	}
	pinned, err := d.pinned(ctx, s)
	if pinned || err != nil {
		return err
	}
	done, err := d.admin.CommitOffsets(ctx, d.cfg.groupID(s.Topic, s.Group), starts.Offsets())
	if err != nil {
		return err
	}
	return done.Error()
}

// pinned reports whether the group has committed anything.
func (d *Driver) pinned(ctx context.Context, s pubsub.Subscription) (bool, error) {
	found, err := d.admin.FetchOffsets(ctx, d.cfg.groupID(s.Topic, s.Group))
	if errors.Is(err, kerr.GroupIDNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	pinned := false
	found.Each(func(o kadm.OffsetResponse) {
		if o.Err != nil {
			err = o.Err
		}
		pinned = pinned || o.At >= 0
	})
	return pinned, err
}

// starts are the offsets where a new group begins.
func (d *Driver) starts(ctx context.Context, s pubsub.Subscription) (kadm.ListedOffsets, error) {
	name := d.cfg.Prefix + s.Topic
	var starts kadm.ListedOffsets
	var err error
	at, timed := s.StartTime()
	switch {
	case timed: // offsets of Kafka have a time in milliseconds
		starts, err = d.admin.ListOffsetsAfterMilli(ctx, at.Add(time.Millisecond-1).UnixMilli(), name)
	case s.Start == "start":
		starts, err = d.admin.ListStartOffsets(ctx, name)
	default:
		starts, err = d.admin.ListEndOffsets(ctx, name)
	}
	if err == nil {
		err = starts.Error()
	}
	return starts, err
}
