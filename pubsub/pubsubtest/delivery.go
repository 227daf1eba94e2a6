package pubsubtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/backstay-go/backstay/pubsub"
)

func everyGroup(e *env) {
	a, b := e.inbox(), e.inbox()
	e.consume(e.sub("a"), a.ok)
	e.consume(e.sub("b"), b.ok)
	msgs := numbered("m", 50)
	e.publish(msgs...)
	a.once(msgs)
	b.once(msgs)
}

func membersShare(e *env) {
	s := e.sub("g")
	s.Concurrency = 1
	both := e.inbox()
	var mu sync.Mutex
	handled := make(map[int]int)
	busy := make(chan struct{})
	var members []*running
	for member := range 2 {
		members = append(members, e.consume(s, func(ctx context.Context, m pubsub.Message) error {
			mu.Lock()
			handled[member]++
			if handled[0] > 0 && handled[1] > 0 && handled[member] == 1 {
				close(busy) // the second member has come to work
			}
			mu.Unlock()
			select { // hold the first message of each until both have one
			case <-busy:
			case <-ctx.Done():
			}
			return both.ok(ctx, m)
		}))
	}
	msgs := numbered("m", 40)
	e.publish(msgs...)
	both.once(msgs)
	for _, m := range members {
		if err := m.stop(); err != nil {
			e.Errorf("Run: %v", err)
		}
	}
	if n := handled[0] + handled[1]; n != len(msgs) {
		e.Errorf("the members handled %d messages, want %d", n, len(msgs))
	}
}

func ackRemoves(e *env) {
	in := e.inbox()
	run := e.consume(e.sub("g"), in.ok)
	msgs := numbered("m", 20)
	e.publish(msgs...)
	in.once(msgs)
	if err := run.stop(); err != nil {
		e.Fatalf("Run: %v", err)
	}
	e.quiet(e.filled("g"), e.h.Lease+e.h.Lease/2)
}

func nackRedelivers(e *env) {
	var mu sync.Mutex
	attempts := make(map[string][]int)
	in := e.inbox()
	e.consume(e.sub("g"), func(ctx context.Context, m pubsub.Message) error {
		mu.Lock()
		attempts[m.ID] = append(attempts[m.ID], m.Attempt)
		mu.Unlock()
		if m.Attempt < 3 {
			return errors.New("not yet")
		}
		return in.ok(ctx, m)
	})
	msgs := numbered("m", 5)
	e.publish(msgs...)
	in.once(msgs)
	mu.Lock()
	defer mu.Unlock()
	exact := 0
	for id, got := range attempts {
		if got[0] != 1 || !rises(got) {
			e.Errorf("message %s: attempts were numbered %v, want 1 2 3", id, got)
		}
		if len(got) == 3 {
			exact++
		}
	}
	if exact == 0 { // a broker may deliver one of them once more
		e.Errorf("attempts were numbered %v, want 1 2 3", attempts)
	}
}

func rises(numbers []int) bool {
	for i := range len(numbers) - 1 {
		if numbers[i] >= numbers[i+1] {
			return false
		}
	}
	return true
}

func delayHonoured(e *env) {
	const delay = 400 * time.Millisecond
	in := e.inbox()
	var failed time.Time
	e.consume(e.sub("g"), func(ctx context.Context, m pubsub.Message) error {
		if m.Attempt == 1 {
			failed = time.Now()
			return pubsub.RetryAfter(delay, errors.New("later"))
		}
		return in.ok(ctx, m)
	})
	e.publish(numbered("m", 1)...)
	in.next()
	if took := time.Since(failed); took < delay-20*time.Millisecond {
		e.Errorf("redelivered after %v, want no sooner than %v", took, delay)
	}
}

// deadLetters runs a reader of the group's dead letters.
func (e *env) deadLetters(group string) *inbox {
	e.Helper()
	dead := e.inbox()
	s := e.sub("readers")
	s.Topic = pubsub.DeadLetterTopic(topic, group)
	e.consume(s, dead.ok)
	return dead
}

func (e *env) checkLetter(got, sent pubsub.Message, reason, attempts, lastError string) {
	e.Helper()
	if got.ID != sent.ID || got.Key != sent.Key || !bytes.Equal(got.Payload, sent.Payload) || got.Header["own"] != sent.Header["own"] {
		e.Errorf("the dead letter is not the message: %+v, want %+v", got, sent)
	}
	for name, want := range map[string]string{
		pubsub.HeaderReason: reason, pubsub.HeaderAttempts: attempts, pubsub.HeaderTopic: topic,
		pubsub.HeaderGroup: "g", pubsub.HeaderLastError: lastError, pubsub.HeaderFirstError: "failure 1",
	} {
		if got.Header[name] != want {
			e.Errorf("header %s of the dead letter is %q, want %q", name, got.Header[name], want)
		}
	}
}

func attemptLimit(e *env) {
	s := e.sub("g")
	s.MaxAttempts = 3
	c := e.open(e.bus, s)
	dead := e.deadLetters("g")
	e.run(c, func(_ context.Context, m pubsub.Message) error { return fmt.Errorf("failure %d", m.Attempt) })
	sent := pubsub.Message{ID: "poison", Topic: topic, Key: "k", Header: pubsub.Header{"own": "kept"}, Payload: []byte("p")}
	e.publish(sent)
	e.checkLetter(dead.next(), sent, "attempts", "3", "failure 3")
}

func deadLetterOnRequest(e *env) {
	buried := make(chan struct{}, 10)
	bus := pubsub.New(e.driver, pubsub.OnDeadLetter(func(pubsub.DeadLettered) { buried <- struct{}{} }))
	c := e.open(bus, e.sub("g"))
	sent := pubsub.Message{ID: "unfit", Topic: topic, Key: "k", Header: pubsub.Header{"own": "kept"}, Payload: []byte("p")}
	run := e.run(c, func(context.Context, pubsub.Message) error { return pubsub.DeadLetter(errors.New("failure 1")) })
	e.publish(sent)
	select {
	case <-buried: // nobody reads yet: the letter must be kept
	case <-time.After(e.h.Wait):
		e.Fatal("no dead letter")
	}
	if err := run.stop(); err != nil {
		e.Fatalf("Run: %v", err)
	}
	dead := e.inbox()
	reader := e.sub("readers")
	reader.Topic = pubsub.DeadLetterTopic(topic, "g")
	if e.driver.Capabilities().ReplayFromStart {
		reader.Start = "start"
	}
	e.consume(reader, dead.ok)
	e.checkLetter(dead.next(), sent, "handler", "1", "failure 1")
	e.quiet(e.filled("g"), e.h.Lease+e.h.Lease/2)
}

// brokenDeadLetters is a driver that cannot publish dead letters for a while.
type brokenDeadLetters struct {
	pubsub.Driver
	mu    sync.Mutex
	fails int
}

func (d *brokenDeadLetters) Publish(ctx context.Context, msgs []pubsub.Message) []error {
	d.mu.Lock()
	fail := d.fails > 0 && strings.Contains(msgs[0].Topic, ".dead.")
	if fail {
		d.fails--
	}
	d.mu.Unlock()
	if fail {
		errs := make([]error, len(msgs))
		for i := range errs {
			errs[i] = errors.New("no room for dead letters")
		}
		return errs
	}
	return d.Driver.Publish(ctx, msgs)
}

func failedDeadLetter(e *env) {
	s := e.sub("g")
	s.MaxAttempts = 1
	dead := e.inbox()
	broken := &brokenDeadLetters{Driver: e.driver, fails: 3}
	c := e.open(pubsub.New(broken), s)
	reader := e.sub("readers")
	reader.Topic = pubsub.DeadLetterTopic(topic, "g")
	e.consume(reader, dead.ok)
	run := e.run(c, func(context.Context, pubsub.Message) error { return errors.New("failure 1") })
	msgs := numbered("m", 1)
	e.publish(msgs...)
	dead.once(msgs)
	if got := c.Stats().DeadLetterFailed; got != 3 {
		e.Errorf("%d dead letters failed, want 3", got)
	}
	if err := run.stop(); err != nil {
		e.Errorf("Run: %v", err)
	}
}

func panicIsNack(e *env) {
	in := e.inbox()
	e.consume(e.sub("g"), func(ctx context.Context, m pubsub.Message) error {
		if m.Attempt == 1 {
			panic("first attempt")
		}
		return in.ok(ctx, m)
	})
	msgs := numbered("m", 3)
	e.publish(msgs...)
	in.once(msgs)
}

// roundTrip publishes m and checks that it arrives as it was.
func (e *env) roundTrip(m pubsub.Message) {
	e.Helper()
	in := e.inbox()
	e.consume(e.sub("g"), in.ok)
	m.Topic, m.ID, m.Time = topic, "the-id", time.Now()
	e.publish(m)
	got := in.next()
	if got.ID != m.ID || got.Topic != m.Topic || got.Key != m.Key || got.Attempt != 1 {
		e.Errorf("got %+v, want %+v with Attempt 1", got, m)
	}
	if d := got.Time.Sub(m.Time).Abs(); d > time.Millisecond {
		e.Errorf("Time is %v, want %v", got.Time, m.Time)
	}
	if !bytes.Equal(got.Payload, m.Payload) {
		e.Errorf("Payload is %q, want %q", got.Payload, m.Payload)
	}
	if len(got.Header) != len(m.Header) {
		e.Errorf("Header is %q, want %q", got.Header, m.Header)
	}
	for name, want := range m.Header {
		if got.Header[name] != want {
			e.Errorf("header %s is %q, want %q", name, got.Header[name], want)
		}
	}
}

func emptyPayload(e *env) { e.roundTrip(pubsub.Message{}) }

func binaryPayload(e *env) {
	payload := make([]byte, 1024)
	for i := range payload {
		payload[i] = byte(i)
	}
	e.roundTrip(pubsub.Message{Payload: payload})
}

func unicodeHeaders(e *env) {
	e.roundTrip(pubsub.Message{
		Key: "Schlüssel 鍵 /%:.*>", Payload: []byte("x"),
		Header: pubsub.Header{
			"plain": "value", "Upper-Case": "kept", "upper-case": "another", "empty": "", "greek": "καλημέρα", "emoji": "🪢",
			"spaces": "  around  ", "lines": "one\r\ntwo: three", "percent": "%41%", "quotes": `"\'`, "x.y_z~!#$&'*+^`|": "odd",
		},
	})
}

func badMessages(e *env) {
	in := e.inbox()
	e.consume(e.sub("g"), in.ok)
	good := pubsub.Message{ID: "good", Topic: topic}
	for name, bad := range map[string]pubsub.Message{
		"empty topic":  {},
		"spaced topic": {Topic: "two words"},
		"wildcard":     {Topic: "orders.>"},
		"dots":         {Topic: "orders..x"},
		"long topic":   {Topic: strings.Repeat("x", 250)},
		"ID":           {Topic: topic, ID: "\xff"},
		"key":          {Topic: topic, Key: "\xff"},
		"header name":  {Topic: topic, Header: pubsub.Header{"a b": "x"}},
		"header value": {Topic: topic, Header: pubsub.Header{"a": "\xff"}},
		"reserved":     {Topic: topic, Header: pubsub.Header{"ce-id": "x"}},
	} {
		err := e.bus.Publish(e.soon(), good, bad)
		var pe *pubsub.PublishError
		if !errors.As(err, &pe) || len(pe.Failed) != 2 || pe.Failed[1].Index != 1 {
			e.Errorf("%s: Publish returned %v, want a *PublishError for both messages", name, err)
			continue
		}
		if !isPermanent(pe.Failed[1].Err) {
			e.Errorf("%s: the failure %v is not permanent", name, pe.Failed[1].Err)
		}
	}
	last := pubsub.Message{ID: "last", Topic: topic}
	e.publish(last)
	if m := in.next(); m.ID != "last" {
		e.Errorf("message %q of a refused call was sent", m.ID)
	}
}

func longPayload(e *env) {
	limit := e.driver.Capabilities().MaxPayload
	err := e.bus.Publish(e.soon(), pubsub.Message{Topic: topic, Payload: make([]byte, limit+1)})
	if err == nil {
		e.Error("a payload beyond MaxPayload was accepted")
	}
	e.roundTrip(pubsub.Message{Payload: bytes.Repeat([]byte{'x'}, limit)})
}

func publishInBulk(e *env) {
	in := e.inbox()
	e.consume(e.sub("g"), in.ok)
	msgs := numbered("m", 1000)
	e.publish(msgs...)
	in.once(msgs)
}

func concurrentPublish(e *env) {
	in := e.inbox()
	e.consume(e.sub("g"), in.ok)
	var wg sync.WaitGroup
	var all []pubsub.Message
	for p := range 8 {
		msgs := numbered(fmt.Sprint("p", p), 50)
		all = append(all, msgs...)
		wg.Go(func() {
			for len(msgs) > 0 {
				n := min(1+p, len(msgs))
				if err := e.bus.Publish(e.soon(), msgs[:n]...); err != nil {
					e.Errorf("Publish: %v", err)
					return
				}
				msgs = msgs[n:]
			}
		})
	}
	wg.Wait()
	in.once(all)
}
