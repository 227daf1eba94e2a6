package pubsubtest

import "github.com/backstay-go/backstay/pubsub"

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
	other := pubsub.New(e.h.Reopen(e.T, e.driver))
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
	third := e.connect(e.h.Reopen(e.T, e.driver))
	in = e.inbox()
	e.run(e.open(third, e.sub("g")), in.ok)
	in.once(second)
}
