package pubsubtest

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay/pubsub"
)

func leaseExtended(e *env) {
	s := e.sub("g")
	s.Concurrency = 1 // one runs, one is queued: both leases must be kept
	in := e.inbox()
	var runs atomic.Int32
	slow := func(ctx context.Context, m pubsub.Message) error {
		runs.Add(1)
		timer := time.NewTimer(e.h.Lease + e.h.Lease/4)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		return in.ok(ctx, m)
	}
	e.consume(s, slow)
	e.consume(s, slow) // where a lost lease would show
	msgs := numbered("m", 4)
	e.publish(msgs...)
	in.once(msgs)
	if n := runs.Load(); n != 4 {
		e.Errorf("handlers ran %d times for 4 messages", n)
	}
}

func abandonedLease(e *env) {
	dead := e.receiver(e.driver, e.filled("g"))
	msgs := numbered("m", 5)
	e.publish(msgs...)
	got, err := dead.Receive(e.soon(), 5)
	if err != nil || len(got) == 0 {
		e.Fatalf("Receive: %d messages, %v", len(got), err)
	}
	begun := time.Now()
	abandoned := make(map[string]bool)
	for _, d := range got {
		abandoned[d.ID] = true
	}
	in := e.inbox()
	e.consume(e.sub("g"), in.ok)
	for range msgs {
		m := in.next()
		if !abandoned[m.ID] {
			continue
		}
		if took := time.Since(begun); took < e.h.Lease/2 {
			e.Errorf("message %s was given away after %v, with a lease of %v", m.ID, took, e.h.Lease)
		}
		if m.Attempt < 2 {
			e.Errorf("message %s came again as attempt %d", m.ID, m.Attempt)
		}
	}
}

func settleTwice(e *env) {
	r := e.receiver(e.driver, e.filled("g"))
	msgs := numbered("m", 2)
	e.publish(msgs...)
	var got []pubsub.Delivery
	for len(got) < 2 {
		more, err := r.Receive(e.soon(), 2)
		if err != nil {
			e.Fatalf("Receive: %v", err)
		}
		got = append(got, more...)
	}
	if got[0].Token == got[1].Token {
		e.Error("two deliveries have one token")
	}
	for range 2 {
		for _, kind := range []pubsub.VerdictKind{pubsub.Ack, pubsub.Extend, pubsub.Nack} {
			verdicts := []pubsub.Verdict{{Token: got[0].Token, Kind: kind}, {Token: got[1].Token, Kind: kind}}
			if err := r.Settle(e.soon(), verdicts); err != nil {
				e.Errorf("Settle: %v", err)
			}
		}
	}
	if err := r.Close(); err != nil {
		e.Errorf("Close: %v", err)
	}
	e.quiet(e.filled("g"), e.h.Lease+e.h.Lease/2)
}

func receiveObeysContext(e *env) {
	r := e.receiver(e.driver, e.filled("g"))
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	returned := make(chan []pubsub.Delivery, 1)
	go func() {
		got, _ := r.Receive(ctx, 1)
		returned <- got
	}()
	select {
	case got := <-returned:
		if len(got) > 0 {
			e.Errorf("got %d messages from an empty topic", len(got))
		}
	case <-time.After(e.h.Wait):
		e.Fatal("Receive outlived its context")
	}
	msgs := numbered("m", 1)
	e.publish(msgs...)
	if got, err := r.Receive(e.soon(), 1); err != nil || len(got) != 1 {
		e.Errorf("after a cancelled Receive: %d messages, %v", len(got), err)
	}
}
