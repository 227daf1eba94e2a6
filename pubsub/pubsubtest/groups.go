package pubsubtest

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/backstay-go/backstay/pubsub"
)

func startAtEnd(e *env) {
	early := e.inbox()
	e.consume(e.sub("early"), early.ok)
	before := numbered("before", 5)
	e.publish(before...)
	early.once(before)
	late := e.inbox()
	e.consume(e.sub("late"), late.ok)
	after := numbered("after", 5)
	e.publish(after...)
	late.once(after)
	early.once(after)
}

func startAtStart(e *env) {
	early := e.inbox()
	e.consume(e.sub("early"), early.ok)
	before := numbered("before", 5)
	e.publish(before...)
	early.once(before)
	s := e.sub("late")
	s.Start = "start"
	late := e.inbox()
	run := e.consume(s, late.ok)
	late.once(before)
	after := numbered("after", 5)
	e.publish(after...)
	late.once(after)
	if err := run.stop(); err != nil {
		e.Errorf("Run: %v", err)
	}
	again := e.filled("late")
	again.Start = "start" // of a group that exists: it goes on where it was
	e.quiet(again, e.h.Lease+e.h.Lease/2)
}

func groupOutlivesClient(e *env) {
	other := pubsub.New(e.h.Reopen(e.T, e.raw))
	c := e.open(other, e.sub("g"))
	in := e.inbox()
	run := e.run(c, in.ok)
	first := numbered("first", 5)
	e.publish(first...)
	in.once(first)
	if err := run.stop(); err != nil {
		e.Errorf("Run: %v", err)
	}
	if err := other.Close(); err != nil {
		e.Errorf("Close: %v", err)
	}
	second := numbered("second", 5)
	e.publish(second...) // while no member is there
	third := e.connect(e.h.Reopen(e.T, e.raw))
	in = e.inbox()
	e.run(e.open(third, e.sub("g")), in.ok)
	in.once(second)
}

func startAtTime(e *env) {
	early := e.inbox()
	e.consume(e.sub("early"), early.ok)
	begun := e.pause()
	before := numbered("before", 5)
	e.publish(before...)
	early.once(before)
	mark := e.pause()
	after := numbered("after", 5)
	e.publish(after...)
	early.once(after)

	s := e.sub("late")
	s.Start = mark.Format(time.RFC3339Nano)
	late := e.inbox()
	run := e.consume(s, late.ok)
	late.once(after)
	more := numbered("more", 5)
	e.publish(more...)
	late.once(more)
	if err := run.stop(); err != nil {
		e.Errorf("Run: %v", err)
	}
	again := e.filled("late")
	again.Start = begun.Format(time.RFC3339Nano) // of a group that exists: it goes on where it was
	e.quiet(again, e.h.Lease+e.h.Lease/2)

	s = e.sub("all")
	s.Start = begun.Format(time.RFC3339Nano)
	all := e.inbox()
	e.consume(s, all.ok)
	all.once(slices.Concat(before, after, more))
}

// pause returns a time that lies clearly between what was done before and what is done next.
func (e *env) pause() time.Time {
	<-time.After(10 * slack)
	now := time.Now()
	<-time.After(10 * slack)
	return now
}

func (e *env) temporarySub(group string) pubsub.Subscription {
	s := e.sub(group)
	s.Temporary = true
	return s
}

func temporaryEnds(e *env) {
	first := e.inbox()
	run := e.consume(e.temporarySub("g"), first.ok)
	handled := numbered("handled", 5)
	e.publish(handled...)
	first.once(handled)
	if err := run.stop(); err != nil {
		e.Errorf("Run: %v", err)
	}
	e.publish(numbered("while-away", 5)...)

	idle := e.open(e.bus, e.temporarySub("g")) // has messages and never handles them
	e.publish(numbered("unhandled", 5)...)
	if err := idle.Close(); err != nil {
		e.Errorf("Close: %v", err)
	}

	second, nameless := e.inbox(), e.inbox()
	e.consume(e.temporarySub("g"), second.ok)
	e.consume(e.temporarySub(""), nameless.ok)
	after := numbered("after", 5)
	e.publish(after...)
	second.once(after) // which fails on any other message
	nameless.once(after)
}

func temporaryDrops(e *env) {
	told := make(chan pubsub.DeadLettered, 10)
	bus := pubsub.New(e.driver, pubsub.OnDeadLetter(func(d pubsub.DeadLettered) { told <- d }))
	s := e.temporarySub("g")
	s.MaxAttempts = 2
	in := e.inbox()
	c := e.open(bus, s)
	e.run(c, func(ctx context.Context, m pubsub.Message) error {
		if m.ID == "poison" {
			return errors.New("failure")
		}
		return in.ok(ctx, m)
	})
	e.publish(pubsub.Message{ID: "poison", Topic: topic})
	select {
	case d := <-told:
		if d.Message.ID != "poison" || d.Attempts != 2 {
			e.Errorf("OnDeadLetter was told of %s after %d attempts, want poison after 2", d.Message.ID, d.Attempts)
		}
	case <-time.After(e.h.Wait):
		e.Fatal("OnDeadLetter was not told")
	}
	msgs := numbered("m", 3)
	e.publish(msgs...)
	in.once(msgs)
	if got := c.Stats(); got.Dropped != 1 || got.DeadLettered != 0 {
		e.Errorf("%d messages were dropped and %d dead-lettered, want 1 and 0", got.Dropped, got.DeadLettered)
	}
}
