package outboxtest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/pubsub"
)

// The effect under test is a message stored in the same transaction: the suite knows no other table.
func testInboxConcurrent[Tx any](t *testing.T, h Harness[Tx]) {
	s := h.New(t)
	in, ob := outbox.NewInbox[Tx](s, outbox.InboxConfig{}), outbox.New[Tx](s, outbox.Config{})
	var fail atomic.Bool
	fail.Store(true)
	handle := in.Handler("c", func(ctx context.Context, tx Tx, m pubsub.Message) error {
		if err := ob.Publish(ctx, tx, message("effect", m.ID)); err != nil {
			return err
		}
		if fail.CompareAndSwap(true, false) {
			return errRefused // after its effect: it must go with the transaction
		}
		return nil
	})
	var wg sync.WaitGroup
	var failures atomic.Int64
	for range 16 {
		wg.Go(func() {
			switch err := handle(t.Context(), message("k", "the id")); {
			case errors.Is(err, errRefused):
				failures.Add(1)
			case err != nil:
				t.Errorf("handler: %v", err)
			}
		})
	}
	wg.Wait()
	equal(t, "failures", failures.Load(), 1)
	equal(t, "effects", ids(fetch(t, s, lease(t, s, "a"), 100)), "the id ")
	equal(t, "statistics", in.Stats(), outbox.InboxStats{Handled: 1, Duplicates: 14})
}

// once runs Once in a transaction of its own.
func once[Tx, R any](t *testing.T, s Store[Tx], in *outbox.Inbox[Tx], consumer, id string, fn func(context.Context) (R, error)) (r R, err error) {
	t.Helper()
	err = s.InTx(waiting(t), func(ctx context.Context, tx Tx) error {
		r, err = outbox.Once(ctx, in, tx, consumer, id, fn)
		return err
	})
	return r, err
}

type receipt struct {
	Number int
	Text   string
}

func testInboxResult[Tx any](t *testing.T, h Harness[Tx]) {
	s := h.New(t)
	in := outbox.NewInbox[Tx](s, outbox.InboxConfig{})
	want := receipt{Number: 7, Text: "✓ \x01 'quoted'"}
	for i := range 3 {
		got, err := once(t, s, in, "c", "id", func(context.Context) (receipt, error) {
			if i > 0 {
				t.Error("the effect was repeated")
			}
			return want, nil
		})
		ok(t, err)
		equal(t, "result", got, want)
	}
	if _, err := once(t, s, in, "c", "id", func(context.Context) (int, error) { return 0, nil }); err == nil {
		t.Fatal("a stored result of another type passed for an int")
	}
}

func testInboxFailure[Tx any](t *testing.T, h Harness[Tx]) {
	s := h.New(t)
	in := outbox.NewInbox[Tx](s, outbox.InboxConfig{})
	calls := 0
	// The caller commits in spite of the failure; the message must not pass for handled.
	ok(t, s.InTx(waiting(t), func(ctx context.Context, tx Tx) error {
		_, err := outbox.Once(ctx, in, tx, "c", "id", func(context.Context) (int, error) { calls++; return 0, errRefused })
		if !errors.Is(err, errRefused) {
			t.Errorf("Once: got %v, want fn's error", err)
		}
		return nil
	}))
	got, err := once(t, s, in, "c", "id", func(context.Context) (int, error) { calls++; return 5, nil })
	ok(t, err)
	equal(t, "result", got, 5)
	equal(t, "calls", calls, 2)
	for _, pair := range [][2]string{{"", "id"}, {"c", ""}} {
		if _, err := once(t, s, in, pair[0], pair[1], func(context.Context) (int, error) { return 0, nil }); err == nil {
			t.Fatalf("Once took consumer %q and ID %q", pair[0], pair[1])
		}
	}
}

func testInboxConsumers[Tx any](t *testing.T, h Harness[Tx]) {
	s := h.New(t)
	in := outbox.NewInbox[Tx](s, outbox.InboxConfig{})
	calls := 0
	count := func(context.Context) (int, error) { calls++; return calls, nil }
	for _, pair := range [][2]string{{"a", "1"}, {"A", "1"}, {"b", "1"}, {"a", "2"}, {"a", "1 "}, {"a", "1"}} {
		_, err := once(t, s, in, pair[0], pair[1], count)
		ok(t, err)
	}
	equal(t, "effects", calls, 5)
}

func testInboxClean[Tx any](t *testing.T, h Harness[Tx]) {
	if h.CleansByDay {
		skip(t, "whole days are removed, and this one has not ended")
	}
	s := h.New(t)
	brief := outbox.NewInbox[Tx](s, outbox.InboxConfig{Retention: 20 * time.Millisecond})
	lasting := outbox.NewInbox[Tx](s, outbox.InboxConfig{})
	calls := 0
	count := func(context.Context) (int, error) { calls++; return calls, nil }
	for _, in := range []*outbox.Inbox[Tx]{brief, lasting} {
		_, err := once(t, s, in, in.Config().Retention.String(), "id", count)
		ok(t, err)
	}
	cleaned := 0
	eventually(t, "the end of the retention", func() bool {
		n, err := lasting.Clean(waiting(t))
		ok(t, err)
		cleaned += n
		return cleaned > 0
	})
	equal(t, "cleaned", cleaned, 1)
	for _, in := range []*outbox.Inbox[Tx]{brief, lasting} {
		_, err := once(t, s, in, in.Config().Retention.String(), "id", count)
		ok(t, err)
	}
	equal(t, "effects: once more after the retention, not within it", calls, 3)
}
