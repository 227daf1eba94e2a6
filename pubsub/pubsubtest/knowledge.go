package pubsubtest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/backstay-go/backstay/pubsub"
)

// What a driver may know besides: how far a group is behind, and whether somebody would answer. It need not, but what it
// tells must be true.

// until waits for what must happen with the broker, asking again and again.
func (e *env) until(what string, met func(ctx context.Context) (bool, string)) {
	e.Helper()
	ctx := e.soon()
	for {
		ok, found := met(ctx)
		if ok {
			return
		}
		select {
		case <-ctx.Done():
			e.Fatalf("%s: %s", what, found)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// untilLag waits until the broker tells what passes.
func (e *env) untilLag(c *pubsub.Consumer, what string, pass func(pubsub.Lag) bool) {
	e.Helper()
	e.until(what, func(ctx context.Context) (bool, string) {
		lag, err := c.Lag(ctx)
		return err == nil && pass(lag), fmt.Sprintf("the lag is %+v, %v", lag, err)
	})
}

// lagged is more than any driver fetches ahead of two handlers that stand still.
const lagged = 1000

func lagIsTold(e *env) { e.lagOf(e.sub("g"), true) }

// A member of an ordered group may know of its own lanes only, which it has once it runs.
func lagOfLanes(e *env) { e.lagOf(e.orderedSub(), false) }

func (e *env) lagOf(s pubsub.Subscription, atOnce bool) {
	s.Concurrency = 2
	c := e.open(e.connect(e.raw), s)
	if _, err := c.Lag(e.soon()); errors.Is(err, pubsub.ErrUnsupported) {
		e.skip = "the driver does not tell the lag"
		return
	}
	msgs := numbered("m", lagged)
	for i := range msgs {
		msgs[i].Key = fmt.Sprint(i % 50)
	}
	e.publish(msgs...)
	if atOnce {
		e.untilLag(c, "before anybody runs", func(l pubsub.Lag) bool { return l.Waiting == lagged && l.Unsettled <= 0 })
	}
	in, begun, gate := e.inbox(), make(chan struct{}, lagged), make(chan struct{})
	e.run(c, func(ctx context.Context, m pubsub.Message) error {
		begun <- struct{}{}
		<-gate
		return in.ok(ctx, m)
	})
	for range 2 {
		select {
		case <-begun:
		case <-time.After(e.h.Wait):
			close(gate)
			e.Fatal("no handler began")
		}
	}
	func() {
		defer close(gate)
		e.untilLag(c, "while handlers stand still", func(l pubsub.Lag) bool {
			if l.Unsettled < 0 {
				return l.Waiting > 0 && l.Waiting <= lagged
			}
			return l.Unsettled >= 2 && l.Waiting+l.Unsettled == lagged
		})
		e.until("Metrics", func(context.Context) (bool, string) {
			for name, value := range c.Metrics() {
				if name == "lag" {
					return value > 0, fmt.Sprint("the lag is ", value)
				}
			}
			return false, "there is no lag"
		})
	}()
	in.all(msgs)
	e.untilLag(c, "when all is handled", func(l pubsub.Lag) bool { return l.Waiting == 0 && l.Unsettled <= 0 })
}

// prober is requestreply's ResponderProbe.
type prober interface {
	Responders(ctx context.Context, topic, group string) (int, error)
}

func respondersAreTold(e *env) {
	p, ok := e.raw.(prober)
	if !ok {
		e.skip = "the driver does not tell who would answer"
		return
	}
	is := func(what string, want bool) {
		e.Helper()
		e.until(what, func(ctx context.Context) (bool, string) {
			n, err := p.Responders(ctx, topic, "g")
			return err == nil && (n > 0) == want, fmt.Sprintf("there are %d responders, %v", n, err)
		})
	}
	is("nobody was there yet", false)
	in, gate := e.inbox(), make(chan struct{})
	s := e.sub("g")
	s.Concurrency = 1
	run := e.consume(s, func(ctx context.Context, m pubsub.Message) error {
		_ = in.ok(ctx, m)
		<-gate
		return nil
	})
	is("an idle member", true)
	func() {
		defer close(gate)
		e.publish(numbered("m", 3)...)
		in.next()
		for range 20 { // a busy member is one too, and never taken for none
			if n, err := p.Responders(e.soon(), topic, "g"); err != nil || n == 0 {
				e.Fatalf("there are %d responders, %v, while a handler runs", n, err)
			}
		}
	}()
	if err := run.stop(); err != nil {
		e.Errorf("Run: %v", err)
	}
	is("the member has left", false)
}
