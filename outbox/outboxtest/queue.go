package outboxtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/pubsub"
)

func testRoundTrip[Tx any](t *testing.T, h Harness[Tx]) {
	s := h.New(t)
	sent := []pubsub.Message{
		{ID: "empty", Topic: "a.b", Time: time.Unix(1_700_000_000, 123_456_789)},
		{ID: "binary", Topic: "a", Key: "k'\"; --", Payload: []byte{0, 1, 0xff, 0xfe, '\n', 0}},
		{ID: "unicode ✓", Topic: "b", Key: "ключ", Header: pubsub.Header{"name": "värde ✓ \"quoted\" \\ \n", "empty": ""}},
		{ID: "large", Topic: "c", Payload: bytes.Repeat([]byte("x"), 1<<19), Time: time.Unix(-1, 0)},
		{Topic: "no-id"},
	}
	put(t, s, sent...)
	got := fetch(t, s, lease(t, s, "a"), 10)
	equal(t, "messages", len(got), len(sent))
	for i, r := range got {
		m := r.Message
		equal(t, "topic", m.Topic, sent[i].Topic)
		equal(t, "key", m.Key, sent[i].Key)
		if !bytes.Equal(m.Payload, sent[i].Payload) || !maps.Equal(m.Header, sent[i].Header) {
			t.Fatalf("message %q: payload or header changed: %q", m.ID, m.Header)
		}
		if m.ID == "" || sent[i].ID != "" && m.ID != sent[i].ID {
			t.Fatalf("ID: got %q, want %q", m.ID, sent[i].ID)
		}
		if m.Time.IsZero() || !sent[i].Time.IsZero() && !m.Time.Equal(sent[i].Time) {
			t.Fatalf("time of %q: got %v, want %v", m.ID, m.Time, sent[i].Time)
		}
	}
	again := fetch(t, s, lease(t, s, "a"), 10)
	equal(t, "the ID that was filled in, fetched again", again[4].Message.ID, got[4].Message.ID)
}

// What a store would drop without a word is refused before anything is stored, beside messages that are all right as well.
func testDeliverAt[Tx any](t *testing.T, h Harness[Tx]) {
	s := h.New(t)
	ob := outbox.New[Tx](s, outbox.Config{})
	late := message("k", "late")
	late.DeliverAt = time.Date(2031, 2, 3, 4, 5, 6, 7, time.UTC)
	ok(t, ob.InTx(waiting(t), func(ctx context.Context, tx Tx) error {
		err := ob.Publish(ctx, tx, message("k", "beside"), late)
		if err == nil || !strings.Contains(err.Error(), "message 1 of 2: DeliverAt is 2031-02-03T04:05:06.000000007Z") {
			t.Errorf("Publish: %v", err)
		}
		return nil
	}))
	equal(t, "messages stored", len(fetch(t, s, lease(t, s, "a"), 10)), 0)
}

func testManyInOneCall[Tx any](t *testing.T, h Harness[Tx]) {
	const n = 2345
	s := h.New(t)
	msgs := make([]pubsub.Message, n)
	for i := range msgs {
		msgs[i] = message("k", fmt.Sprint(i))
	}
	put(t, s, msgs...)
	got := fetch(t, s, lease(t, s, "a"), n+1)
	equal(t, "messages", len(got), n)
	for i, r := range got {
		equal(t, "ID", r.Message.ID, fmt.Sprint(i))
	}
}

func testRolledBack[Tx any](t *testing.T, h Harness[Tx]) {
	s := h.New(t)
	ob := outbox.New[Tx](s, outbox.Config{})
	publishThen := func(then func() error) error {
		return ob.InTx(waiting(t), func(ctx context.Context, tx Tx) error {
			if err := ob.Publish(ctx, tx, message("k", "lost")); err != nil {
				return err
			}
			return then()
		})
	}
	cause := errors.New("business error")
	if err := publishThen(func() error { return cause }); !errors.Is(err, cause) {
		t.Fatalf("InTx: got %v, want fn's error", err)
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Fatal("InTx swallowed the panic")
			}
		}()
		_ = publishThen(func() error { panic("boom") })
	}()
	ctx, cancel := context.WithCancel(t.Context())
	err := ob.InTx(ctx, func(ctx context.Context, tx Tx) error {
		defer cancel()
		return ob.Publish(ctx, tx, message("k", "lost"))
	})
	if !errors.Is(err, context.Canceled) || errors.Is(err, outbox.ErrInDoubt) {
		t.Fatalf("InTx with a context cancelled before the commit: %v", err)
	}
	put(t, s, message("k", "kept"))
	p := &Publisher{}
	start(t, s, p, outbox.RelayConfig{})
	ok(t, p.Wait(waiting(t), func(taken []pubsub.Message, _ int) bool { return len(taken) > 0 }))
	equal(t, "published", p.Messages()[0].ID, "kept")
	equal(t, "left", len(fetch(t, s, lease(t, s, "a"), 10)), 0)
}

func testLateCommit[Tx any](t *testing.T, h Harness[Tx]) {
	if !h.ConcurrentTx {
		skip(t, "one writing transaction at a time: sequence and commit order cannot differ")
	}
	s := h.New(t)
	ob := outbox.New[Tx](s, outbox.Config{})
	p := &Publisher{}
	start(t, s, p, outbox.RelayConfig{})
	ok(t, ob.InTx(waiting(t), func(ctx context.Context, tx Tx) error {
		if err := ob.Publish(ctx, tx, message("a", "early number, late commit")); err != nil {
			return err
		}
		put(t, s, message("b", "late number, early commit"))
		return p.Wait(ctx, func(taken []pubsub.Message, _ int) bool { return len(taken) == 1 })
	}))
	ok(t, p.Wait(waiting(t), func(taken []pubsub.Message, _ int) bool { return len(taken) == 2 }))
}

func testFetch[Tx any](t *testing.T, h Harness[Tx]) {
	s := h.New(t)
	for i := range 200 {
		put(t, s, message(fmt.Sprint("key", i), fmt.Sprint(i)))
	}
	all := lease(t, s, "a")
	equal(t, "limited", len(fetch(t, s, all, 7)), 7)
	seen := 0
	for bucket := range outbox.Buckets {
		one := outbox.Leases{Owner: "a"}
		one.Epochs[bucket] = all.Epochs[bucket]
		last := int64(0)
		for _, r := range fetch(t, s, one, 1000) {
			equal(t, "bucket", r.Bucket(), bucket)
			if r.Seq <= last {
				t.Fatalf("Seq %d follows %d", r.Seq, last)
			}
			last = r.Seq
			seen++
		}
	}
	equal(t, "seen in all buckets", seen, 200)
	equal(t, "seen without leases", len(fetch(t, s, outbox.Leases{Owner: "a"}, 1000)), 0)
}

func testShare[Tx any](t *testing.T, h Harness[Tx]) {
	s := h.New(t)
	a := lease(t, s, "a")
	equal(t, "buckets of the first", a.Count(), outbox.Buckets)
	b := lease(t, s, "b")
	equal(t, "buckets of the second before the first gives way", b.Count(), 0)
	equal(t, "share of the second", b.Share, outbox.Buckets/2)
	a = lease(t, s, "a")
	equal(t, "renewed by the first", a.Count(), outbox.Buckets)
	equal(t, "share of the first", a.Share, outbox.Buckets/2)
	half := a
	for bucket := range outbox.Buckets / 2 {
		half.Epochs[bucket] = 0
	}
	ok(t, s.Release(waiting(t), half))
	a, b = lease(t, s, "a"), lease(t, s, "b")
	equal(t, "buckets of the first", a.Count(), outbox.Buckets/2)
	equal(t, "buckets of the second", b.Count(), outbox.Buckets/2)
	equal(t, "held by both", a.Mask()&b.Mask(), 0)
	c := lease(t, s, "c")
	equal(t, "share of three", c.Share, 22)
	ok(t, s.Release(waiting(t), b))
	ok(t, s.Release(waiting(t), c))
	equal(t, "share after the others have left", lease(t, s, "a").Share, outbox.Buckets)
}

func testExpiry[Tx any](t *testing.T, h Harness[Tx]) {
	s := h.New(t)
	a, err := s.Lease(waiting(t), "a", 50*time.Millisecond)
	ok(t, err)
	b := lease(t, s, "b")
	eventually(t, "takeover", func() bool {
		b = lease(t, s, "b")
		return b.Count() == outbox.Buckets
	})
	for bucket := range outbox.Buckets {
		if b.Epochs[bucket] <= a.Epochs[bucket] {
			t.Fatalf("bucket %d: epoch %d after %d", bucket, b.Epochs[bucket], a.Epochs[bucket])
		}
	}
	equal(t, "held by the one who lost all", lease(t, s, "a").Count(), 0)
}

// replace makes owner b take everything that a let expire.
func replace[Tx any](t *testing.T, s Store[Tx]) (a, b outbox.Leases, records []outbox.Record) {
	t.Helper()
	a, err := s.Lease(waiting(t), "a", 50*time.Millisecond)
	ok(t, err)
	records = fetch(t, s, a, 100)
	eventually(t, "takeover", func() bool {
		b = lease(t, s, "b")
		return b.Count() == outbox.Buckets
	})
	return a, b, records
}

func testLateSettle[Tx any](t *testing.T, h Harness[Tx]) {
	s := h.New(t)
	put(t, s, message("x", "1"), message("y", "2"))
	a, b, records := replace(t, s)
	if err := s.Settle(waiting(t), a, records, nil); !errors.Is(err, outbox.ErrFenced) {
		t.Fatalf("late settle of what was published: got %v, want ErrFenced", err)
	}
	failure := outbox.Failure{Record: records[0], Err: errors.New("late"), Parked: true}
	if err := s.Settle(waiting(t), a, nil, []outbox.Failure{failure}); !errors.Is(err, outbox.ErrFenced) {
		t.Fatalf("late settle of what failed: got %v, want ErrFenced", err)
	}
	equal(t, "still there", ids(fetch(t, s, b, 10)), "1 2 ")
	mixed := b
	mixed.Epochs[records[0].Bucket()]--
	if err := s.Settle(waiting(t), mixed, records, nil); !errors.Is(err, outbox.ErrFenced) {
		t.Fatalf("settle with one bucket lost: got %v, want ErrFenced", err)
	}
	equal(t, "only the bucket that is held was settled", ids(fetch(t, s, b, 10)), "1 ")
}

func testLateRelease[Tx any](t *testing.T, h Harness[Tx]) {
	s := h.New(t)
	a, b, _ := replace(t, s)
	ok(t, s.Release(waiting(t), a))
	equal(t, "held by the new owner", lease(t, s, "b").Epochs, b.Epochs)
}

// fail settles the first record as failed.
func fail[Tx any](t *testing.T, s Store[Tx], l outbox.Leases, f outbox.Failure) {
	t.Helper()
	f.Record = fetch(t, s, l, 1)[0]
	f.Record.Attempts++
	f.Err = errors.New("refused ✓ 'quoted' \x00 \xff") // as a broker's answer may be
	ok(t, s.Settle(waiting(t), l, nil, []outbox.Failure{f}))
}

func testDelay[Tx any](t *testing.T, h Harness[Tx]) {
	s := h.New(t)
	put(t, s, message("x", "x1"), message("x", "x2"), message("y", "y1"), message("", "z1"), message("", "z2"))
	l := lease(t, s, "a")
	fail(t, s, l, outbox.Failure{Delay: time.Hour})
	equal(t, "due beside the delayed key", ids(fetch(t, s, l, 10)), "y1 z1 z2 ")
	ok(t, s.Settle(waiting(t), l, fetch(t, s, l, 1), nil))
	fail(t, s, l, outbox.Failure{Delay: time.Hour})
	equal(t, "a message without key delays itself only", ids(fetch(t, s, l, 10)), "z2 ")
	fail(t, s, l, outbox.Failure{Delay: 30 * time.Millisecond})
	eventually(t, "end of the delay", func() bool { return len(fetch(t, s, l, 10)) == 1 })
	r := fetch(t, s, l, 10)
	equal(t, "attempts are kept", r[0].Attempts, 1)
	ok(t, s.Settle(waiting(t), l, r, nil))
	put(t, s, message("", "z2"))
	equal(t, "attempts of a new message in that lane", fetch(t, s, l, 10)[0].Attempts, 0)
}

// A delay that ends while Fetch reads must not let the second message of a key through without the first.
func testFetchAtOneMoment[Tx any](t *testing.T, h Harness[Tx]) {
	const n = 1000
	s := h.New(t)
	msgs := make([]pubsub.Message, n)
	for i := range msgs {
		msgs[i] = message([]string{"x", "y"}[i%2], fmt.Sprint(i))
	}
	put(t, s, msgs...)
	l := lease(t, s, "a")
	for range 20 {
		fail(t, s, l, outbox.Failure{Delay: 5 * time.Millisecond})
		for due := false; !due; {
			for _, r := range fetch(t, s, l, n) {
				if r.Message.Key == "x" && !due {
					equal(t, "first of its key", r.Message.ID, "0")
					due = true
				}
			}
		}
	}
}

// park parks the head of key x, of which a second message waits, beside key y.
func park[Tx any](t *testing.T, s Store[Tx]) (outbox.Leases, outbox.Parked) {
	t.Helper()
	put(t, s, message("x", "x1"), message("x", "x2"), message("y", "y1"))
	l := lease(t, s, "a")
	fail(t, s, l, outbox.Failure{Parked: true})
	equal(t, "due beside the parked key", ids(fetch(t, s, l, 10)), "y1 ")
	list, err := s.Parked(waiting(t), 0, 10)
	ok(t, err)
	equal(t, "parked", len(list), 1)
	p := list[0]
	equal(t, "parked message", p.Record.Message.ID, "x1")
	equal(t, "attempts", p.Record.Attempts, 1)
	if age := time.Since(p.Since); !strings.Contains(p.Reason, "refused ✓ 'quoted'") || age < -time.Hour || age > time.Hour {
		t.Fatalf("parked with reason %q since %v", p.Reason, p.Since)
	}
	list, err = s.Parked(waiting(t), p.Record.Seq, 10)
	ok(t, err)
	equal(t, "parked after it", len(list), 0)
	return l, p
}

func testRequeue[Tx any](t *testing.T, h Harness[Tx]) {
	s := h.New(t)
	l, p := park(t, s)
	n, err := s.Requeue(waiting(t), p.Record.Seq, p.Record.Seq+1_000_000)
	ok(t, err)
	equal(t, "requeued", n, 1)
	r := fetch(t, s, l, 10)
	equal(t, "due", ids(r), "x1 x2 y1 ")
	equal(t, "attempts", r[0].Attempts, 0)
}

func testSkip[Tx any](t *testing.T, h Harness[Tx]) {
	s := h.New(t)
	l, p := park(t, s)
	n, err := s.Skip(waiting(t), p.Record.Seq)
	ok(t, err)
	equal(t, "skipped", n, 1)
	equal(t, "due", ids(fetch(t, s, l, 10)), "x2 y1 ")
	n, err = s.Skip(waiting(t), p.Record.Seq)
	ok(t, err)
	equal(t, "skipped again", n, 0)
}

func testEdit[Tx any](t *testing.T, h Harness[Tx]) {
	s := h.New(t)
	l, p := park(t, s)
	before := p.Record.Message
	edited := pubsub.Message{ID: "ignored", Key: "ignored", Topic: "repaired", Header: pubsub.Header{"by": "å"}, Payload: []byte{0, 1, 2}}
	n, err := s.Edit(waiting(t), p.Record.Seq, edited)
	ok(t, err)
	equal(t, "edited", n, 1)
	equal(t, "due while it is parked still", ids(fetch(t, s, l, 10)), "y1 ")
	if _, err := s.Edit(waiting(t), p.Record.Seq, pubsub.Message{Topic: "no topic"}); err == nil {
		t.Fatal("Edit took an impossible topic")
	}
	_, err = s.Requeue(waiting(t), p.Record.Seq)
	ok(t, err)
	r := fetch(t, s, l, 10)
	equal(t, "due, in the order of before", ids(r), "x1 x2 y1 ")
	got := r[0].Message
	equal(t, "topic", got.Topic, "repaired")
	equal(t, "key", got.Key, before.Key)
	equal(t, "lane", r[0].Lane, p.Record.Lane)
	if !bytes.Equal(got.Payload, edited.Payload) || !maps.Equal(got.Header, edited.Header) || !got.Time.Equal(before.Time) {
		t.Fatalf("payload %q, header %q, time %v", got.Payload, got.Header, got.Time)
	}
	n, err = s.Edit(waiting(t), p.Record.Seq, before)
	ok(t, err)
	equal(t, "edited where it is not parked", n, 0)
	equal(t, "topic", fetch(t, s, l, 10)[0].Message.Topic, "repaired")
}

func testRepairTouchesParkedOnly[Tx any](t *testing.T, h Harness[Tx]) {
	s := h.New(t)
	put(t, s, message("x", "x1"), message("y", "y1"))
	l := lease(t, s, "a")
	seq := []int64{fetch(t, s, l, 2)[0].Seq, fetch(t, s, l, 2)[1].Seq}
	fail(t, s, l, outbox.Failure{Delay: time.Hour})
	for _, repair := range []func(context.Context, ...int64) (int, error){s.Skip, s.Requeue} {
		n, err := repair(waiting(t), seq...)
		ok(t, err)
		equal(t, "repaired", n, 0)
		n, err = repair(waiting(t))
		ok(t, err)
		equal(t, "repaired", n, 0)
	}
	equal(t, "due", ids(fetch(t, s, l, 10)), "y1 ")
}

func testBacklog[Tx any](t *testing.T, h Harness[Tx]) {
	s := h.New(t)
	b, err := s.Backlog(waiting(t))
	ok(t, err)
	equal(t, "empty", b, outbox.Backlog{})
	park(t, s)
	eventually(t, "age", func() bool {
		b, err = s.Backlog(waiting(t))
		ok(t, err)
		return b.OldestAge > 0
	})
	equal(t, "pending", b.Pending, 3)
	equal(t, "parked", b.Parked, 1)
	if b.OldestAge > time.Hour {
		t.Fatalf("age %v", b.OldestAge)
	}
}
