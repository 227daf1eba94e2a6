package pubsubtest

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/backstay-go/backstay/pubsub"
)

// failUntilRedriven is a handler that makes a dead letter of what was not redriven.
func failUntilRedriven(in *inbox) pubsub.Handler {
	return func(ctx context.Context, m pubsub.Message) error {
		if m.Header[pubsub.HeaderRedrive] == "" {
			return pubsub.DeadLetter(errors.New("failure 1"))
		}
		return in.ok(ctx, m)
	}
}

// awaitDead waits until c has sent n messages to the dead-letter topic.
func (e *env) awaitDead(c *pubsub.Consumer, n int64) {
	e.Helper()
	ctx := e.soon()
	for c.Stats().DeadLettered < n {
		select {
		case <-ctx.Done():
			e.Fatalf("%d dead letters, want %d", c.Stats().DeadLettered, n)
		case <-time.After(time.Millisecond):
		}
	}
}

func (e *env) redrive(limit, want int) {
	e.Helper()
	moved, err := e.bus.Redrive(e.soon(), topic, "g", limit)
	if err != nil || moved != want {
		e.Errorf("Redrive moved %d messages and returned %v, want %d", moved, err, want)
	}
}

func redriveForOne(e *env) {
	again, others := e.inbox(), e.inbox()
	c := e.open(e.bus, e.sub("g"))
	e.run(c, failUntilRedriven(again))
	other := e.open(e.bus, e.sub("other"))
	othersRun := e.run(other, others.ok)
	msgs := numbered("m", 20)
	for i := range msgs {
		msgs[i].Key, msgs[i].Header = msgs[i].ID, pubsub.Header{"own": "kept"}
	}
	e.publish(msgs...)
	others.once(msgs)
	e.awaitDead(c, 20)

	e.redrive(0, 20)
	for range msgs {
		got := again.next()
		name, rest, _ := strings.Cut(got.Header[pubsub.HeaderRedrive], "/")
		if name != "g" || rest == "" || got.Header["own"] != "kept" || got.Key != got.ID || got.Attempt != 1 {
			e.Errorf("a redriven message is %+v", got)
		}
		for header := range got.Header {
			if strings.HasPrefix(header, "backstay-dead-") {
				e.Errorf("a redriven message has the header %s", header)
			}
		}
	}

	ctx := e.soon()
	for other.Stats().Skipped < 20 { // the other group has them too, and acknowledges them unhandled
		select {
		case <-ctx.Done():
			e.Fatalf("the other group skipped %d messages, want 20", other.Stats().Skipped)
		case <-time.After(time.Millisecond):
		}
	}
	if err := othersRun.stop(); err != nil {
		e.Errorf("Run: %v", err)
	}
	if n := len(others.ch); n > 0 {
		e.Errorf("the other group handled %d redriven messages", n)
	}
	e.quiet(e.filled("other"), e.h.Lease+e.h.Lease/2)
}

func redriveLimit(e *env) {
	again := e.inbox()
	c := e.open(e.bus, e.sub("g"))
	e.run(c, failUntilRedriven(again))
	msgs := numbered("m", 7)
	e.publish(msgs...)
	e.awaitDead(c, 7)
	e.redrive(3, 3)
	e.redrive(3, 3)
	e.redrive(3, 1)
	again.once(msgs)
}

func heldKey(e *env) {
	again := e.inbox()
	s := e.orderedSub()
	s.HoldKey = true
	c := e.open(e.bus, s)
	dead := e.deadLetters("g")
	e.run(c, func(ctx context.Context, m pubsub.Message) error {
		early := m.Key == "one" && m.ID != "later" && m.Header[pubsub.HeaderRedrive] == ""
		switch {
		case early && m.ID == "m-0000":
			return pubsub.DeadLetter(errors.New("failure 1"))
		case early:
			e.Errorf("message %s was handled, whose key is held", m.ID)
		}
		return again.ok(ctx, m)
	})
	msgs := oneKey(5)
	free := pubsub.Message{ID: "free", Topic: topic, Key: "another"}
	e.publish(msgs...)
	e.publish(free)
	if got := again.next(); got.ID != free.ID {
		e.Errorf("message %s came before that of another key", got.ID)
	}
	for range msgs {
		got := dead.next()
		reason := "held"
		if got.ID == msgs[0].ID {
			reason = "handler"
		}
		if got.Header[pubsub.HeaderReason] != reason {
			e.Errorf("dead letter %s has the reason %q, want %q", got.ID, got.Header[pubsub.HeaderReason], reason)
		}
	}
	e.redrive(len(msgs), len(msgs))
	later := pubsub.Message{ID: "later", Topic: topic, Key: "one"}
	e.publish(later)
	for _, want := range append(msgs, later) {
		if got := again.next(); got.ID != want.ID {
			e.Errorf("after the redrive message %s was handled, want %s", got.ID, want.ID)
		}
	}
}
