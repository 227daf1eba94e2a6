package outboxtest

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/pubsub"
)

// patience bounds every wait, generously: a suite that hangs says less than one that fails.
const patience = 60 * time.Second

// Store is everything that package outbox asks of a database.
type Store[Tx any] interface {
	outbox.Store[Tx]
	outbox.Queue
	outbox.Inspector
	outbox.InboxStore[Tx]
}

// Harness tells the suite how to reach the store under test.
type Harness[Tx any] struct {
	// New returns an empty store, separate from any other, and registers its removal with t.Cleanup. Its clock must run in real time.
	New func(t *testing.T) Store[Tx]
	// ConcurrentTx declares that two writing transactions may be open at once. Where it is false, as on SQLite, the subtests of
	// transactions that overlap are skipped.
	ConcurrentTx bool
	// CleansByDay declares that Clean removes what was handled on one day all at once. The subtest that counts what it removes is skipped.
	CleansByDay bool
}

// Run runs the suite, one subtest for each guarantee.
func Run[Tx any](t *testing.T, h Harness[Tx]) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, Harness[Tx])
	}{
		{"MessageComesBackAsItWasStored", testRoundTrip[Tx]},
		{"DeliverAtIsRefused", testDeliverAt[Tx]},
		{"ManyMessagesInOneCallKeepTheirOrder", testManyInOneCall[Tx]},
		{"RolledBackIsNeverPublished", testRolledBack[Tx]},
		{"CommittedIsPublishedAtLeastOnce", testCommitted[Tx]},
		{"LateCommitIsNotLost", testLateCommit[Tx]},
		{"FetchKeepsToBucketsAndLimit", testFetch[Tx]},
		{"PrefetchLeavesOutWhatIsInHand", testPrefetch[Tx]},
		{"LeasesAreShared", testShare[Tx]},
		{"ExpiredLeaseIsTakenOver", testExpiry[Tx]},
		{"LateSettleIsRefused", testLateSettle[Tx]},
		{"LateReleaseIsRefused", testLateRelease[Tx]},
		{"FailureDelaysItsKeyOnly", testDelay[Tx]},
		{"FetchJudgesDelaysAtOneMoment", testFetchAtOneMoment[Tx]},
		{"ParkedHoldsItsKeyUntilRequeued", testRequeue[Tx]},
		{"ParkedHoldsItsKeyUntilSkipped", testSkip[Tx]},
		{"ParkedIsEdited", testEdit[Tx]},
		{"RepairTouchesParkedOnly", testRepairTouchesParkedOnly[Tx]},
		{"BacklogCounts", testBacklog[Tx]},
		{"OrderPerKeyWithThreeRelays", testOrder[Tx]},
		{"PoisonHeadParksOnlyItsKey", testPoison[Tx]},
		{"TwoRelaysPublishNothingTwice", testNoDuplicates[Tx]},
		{"AbandonedRelayIsReplaced", testAbandoned[Tx]},
		{"ConcurrentDuplicatesHaveOneEffect", testInboxConcurrent[Tx]},
		{"DuplicateGetsTheStoredResult", testInboxResult[Tx]},
		{"FailedEffectIsForgotten", testInboxFailure[Tx]},
		{"ConsumersAreSeparate", testInboxConsumers[Tx]},
		{"CleanKeepsToRetention", testInboxClean[Tx]},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, h) })
	}
}

// skip prints why a subtest does not apply.
func skip(t *testing.T, reason string) {
	t.Helper()
	fmt.Fprintf(os.Stderr, "outboxtest: %s skipped: %s\n", t.Name(), reason)
	t.Skip(reason)
}

func waiting(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: got %v, want %v", what, got, want)
	}
}

// put stores messages in a transaction of their own.
func put[Tx any](t *testing.T, s Store[Tx], msgs ...pubsub.Message) {
	t.Helper()
	ob := outbox.New[Tx](s, outbox.Config{})
	ok(t, ob.InTx(waiting(t), func(ctx context.Context, tx Tx) error { return ob.Publish(ctx, tx, msgs...) }))
}

func message(key, id string) pubsub.Message {
	return pubsub.Message{ID: id, Topic: "test", Key: key, Payload: []byte(id)}
}

// lease takes everything for owner.
func lease[Tx any](t *testing.T, s Store[Tx], owner string) outbox.Leases {
	t.Helper()
	l, err := s.Lease(waiting(t), owner, time.Minute)
	ok(t, err)
	return l
}

func fetch[Tx any](t *testing.T, s Store[Tx], l outbox.Leases, limit int) []outbox.Record {
	t.Helper()
	records, err := s.Fetch(waiting(t), l, limit)
	ok(t, err)
	return records
}

func ids(records []outbox.Record) string {
	var text strings.Builder
	for _, r := range records {
		text.WriteString(r.Message.ID + " ")
	}
	return text.String()
}

// eventually asks every few milliseconds until done.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	ctx := waiting(t)
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for !done() {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// start runs a relay until the returned function, or the end of the test, stops it.
func start(t *testing.T, q outbox.Queue, p pubsub.Publisher, cfg outbox.RelayConfig, opts ...outbox.RelayOption) (r *outbox.Relay, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	r = outbox.NewRelay(q, p, cfg, opts...)
	go func() { done <- r.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(patience):
			t.Errorf("Run did not return within %v of its cancellation", patience)
		}
	}
	t.Cleanup(stop)
	return r, stop
}
