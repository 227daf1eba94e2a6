package pubsubtest

import (
	"errors"
	"fmt"
	"time"

	"github.com/backstay-go/backstay/pubsub"
)

// tick is longer than the grain of a broker that keeps the time of a delayed message in whole seconds.
func (e *env) tick() time.Duration { return 1200 * time.Millisecond * e.scale }

// slack is what two clocks of one machine may differ by.
const slack = 20 * time.Millisecond

func deliverAtIsDeclared(e *env) {
	err := e.bus.Publish(e.soon(), pubsub.Message{Topic: topic, DeliverAt: time.Now().Add(time.Hour)})
	switch {
	case e.driver.Capabilities().DeliverAt && err != nil:
		e.Errorf("the driver declares DeliverAt: %v", err)
	case !e.driver.Capabilities().DeliverAt && !errors.Is(err, pubsub.ErrUnsupported):
		e.Errorf("the driver declares no DeliverAt, and Publish returned %v", err)
	}
}

// delayedBy makes a message that is due d after begun.
func delayedBy(begun time.Time, d time.Duration) pubsub.Message {
	return pubsub.Message{ID: fmt.Sprint("after-", d), Topic: topic, Key: "k", DeliverAt: begun.Add(d)}
}

// due waits for the given messages, which must come in this order and none before its time.
func (b *inbox) due(msgs ...pubsub.Message) {
	b.e.Helper()
	for _, want := range msgs {
		got := b.next()
		if got.ID != want.ID {
			b.e.Errorf("message %s came, want %s", got.ID, want.ID)
		}
		if early := time.Until(want.DeliverAt); !want.DeliverAt.IsZero() && early > slack {
			b.e.Errorf("message %s came %v too early", got.ID, early)
		}
	}
}

func deliverAtHonoured(e *env) {
	in := e.inbox()
	e.consume(e.sub("g"), in.ok)
	begun := time.Now()
	first, second := delayedBy(begun, e.tick()), delayedBy(begun, 2*e.tick())
	past := pubsub.Message{ID: "past", Topic: topic, DeliverAt: begun.Add(-time.Hour)}
	e.publish(second, first)
	e.publish(past)
	e.pulse.note(time.Since(begun)) // what is late now may come behind the first
	in.due(past, first, second)
	last := pubsub.Message{ID: "last", Topic: topic}
	e.publish(last)
	in.due(last) // and none of the others twice
}

// A delayed message takes its place in the order of its key when it is due, and not before.
func deliverAtInLane(e *env) {
	in := e.inbox()
	e.consume(e.orderedSub(), in.ok)
	begun := time.Now()
	first, second := delayedBy(begun, e.tick()), delayedBy(begun, 2*e.tick())
	var atOnce []pubsub.Message
	for i := range 5 {
		atOnce = append(atOnce, pubsub.Message{ID: fmt.Sprint("at-once-", i), Topic: topic, Key: "k"})
	}
	e.publish(second, first)
	e.publish(atOnce...)
	e.pulse.note(time.Since(begun)) // what is late now may come behind the first
	in.due(append(atOnce, first, second)...)
}
