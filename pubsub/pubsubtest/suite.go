package pubsubtest

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/backstay-go/backstay/pubsub"
)

// Harness says how to reach the driver under test.
type Harness struct {
	// New returns a driver on a broker, or a part of one, that no other test sees and that has no topics. The suite
	// closes it; what else there is to clean up, New leaves to t.Cleanup. Required.
	New func(t *testing.T) pubsub.Driver
	// Reopen returns another driver on the same broker or part as d, as another process would have. The suite closes
	// it. Nil: the tests that need a second client are skipped.
	Reopen func(t *testing.T, d pubsub.Driver) pubsub.Driver
	// Lease is the lease that the tests ask for; it should be short, and long beside a round trip. Default 2s.
	Lease time.Duration
	// Wait is how long a test waits for something that must happen. Default 1m.
	Wait time.Duration
	// Parallel is how many tests run at a time; they wait more than they work. New and Reopen must allow it. Default 1.
	Parallel int
	// Foreign publishes a message to a topic as a program that is not this library would, with header values of its
	// own choice, some of them twice. Nil: the test of such messages is skipped.
	Foreign func(ctx context.Context, d pubsub.Driver, topic string, header map[string][]string, payload []byte) error
	// Skip has the reason for every test that the broker cannot pass, under the name of the test.
	Skip map[string]string
}

type test struct {
	name  string
	needs []need
	run   func(e *env)
}

// need is what a test cannot do without.
type need struct {
	missing string // the reason for skipping
	met     func(h Harness, caps pubsub.Capabilities) bool
}

var (
	ordered   = need{"the driver declares no order", func(_ Harness, c pubsub.Capabilities) bool { return c.Ordered }}
	replay    = need{"the driver declares no replay", func(_ Harness, c pubsub.Capabilities) bool { return c.ReplayFromStart }}
	timed     = need{"the driver declares no start at a time", func(_ Harness, c pubsub.Capabilities) bool { return c.ReplayFromTime }}
	delayed   = need{"the driver declares no DeliverAt", func(_ Harness, c pubsub.Capabilities) bool { return c.DeliverAt }}
	temporary = need{"the driver declares no temporary groups", func(_ Harness, c pubsub.Capabilities) bool { return c.Temporary }}
	dedup     = need{"the driver declares no Dedup", func(_ Harness, c pubsub.Capabilities) bool { return c.Dedup > 0 }}
	second    = need{"the harness has no Reopen", func(h Harness, _ pubsub.Capabilities) bool { return h.Reopen != nil }}
	foreign   = need{"the harness has no Foreign", func(h Harness, _ pubsub.Capabilities) bool { return h.Foreign != nil }}
	limited   = need{"the driver declares no MaxPayload that can be tried", func(_ Harness, c pubsub.Capabilities) bool {
		return c.MaxPayload > 0 && c.MaxPayload <= 64<<20
	}}
)

var suite = []test{
	{name: "EveryGroupGetsEveryMessage", run: everyGroup},
	{name: "MembersShareMessages", run: membersShare},
	{name: "AckRemoves", run: ackRemoves},
	{name: "NackRedeliversWithCount", run: nackRedelivers},
	{name: "DelayIsHonoured", run: delayHonoured},
	{name: "AttemptLimitDeadLetters", run: attemptLimit},
	{name: "DeadLetterOnRequest", run: deadLetterOnRequest},
	{name: "FailedDeadLetterIsNotLost", run: failedDeadLetter},
	{name: "PanicIsNack", run: panicIsNack},
	{name: "EmptyPayload", run: emptyPayload},
	{name: "BinaryPayload", run: binaryPayload},
	{name: "UnicodeHeaders", run: unicodeHeaders},
	{name: "BadMessagesAreRefused", run: badMessages},
	{name: "OddTopicsAndGroups", run: oddNames},
	{name: "ForeignMessages", needs: []need{foreign}, run: foreignMessages},
	{name: "LongPayloadIsRefused", needs: []need{limited}, run: longPayload},
	{name: "PublishInBulk", run: publishInBulk},
	{name: "ConcurrentPublish", run: concurrentPublish},
	{name: "StartAtEnd", run: startAtEnd},
	{name: "StartAtStart", needs: []need{replay}, run: startAtStart},
	{name: "StartAtTime", needs: []need{timed}, run: startAtTime},
	{name: "TemporaryGroupEndsWithItsConsumer", needs: []need{temporary}, run: temporaryEnds},
	{name: "TemporaryGroupHasNoDeadLetters", needs: []need{temporary}, run: temporaryDrops},
	{name: "DeliverAtIsDeclared", run: deliverAtIsDeclared},
	{name: "DeliverAtIsHonoured", needs: []need{delayed}, run: deliverAtHonoured},
	{name: "DeliverAtDoesNotHoldUpItsKey", needs: []need{ordered, delayed}, run: deliverAtInLane},
	{name: "DuplicatesAreDropped", needs: []need{dedup}, run: duplicatesDropped},
	{name: "RedriveIsForItsGroupAlone", needs: []need{replay}, run: redriveForOne},
	{name: "RedriveObeysItsLimit", needs: []need{replay}, run: redriveLimit},
	{name: "Batches", run: batches},
	{name: "BatchHasOneOfAKey", needs: []need{ordered}, run: batchPerKey},
	{name: "HeldKeyWaitsForItsRedrive", needs: []need{ordered, replay}, run: heldKey},
	{name: "GroupOutlivesClient", needs: []need{second}, run: groupOutlivesClient},
	{name: "OrderIsDeclared", run: orderIsDeclared},
	{name: "OrderPerKey", needs: []need{ordered}, run: orderPerKey},
	{name: "OrderUnderFailures", needs: []need{ordered}, run: orderUnderFailures},
	{name: "OrderAcrossClose", needs: []need{ordered}, run: orderAcrossClose},
	{name: "OrderAcrossAbandon", needs: []need{ordered}, run: orderAcrossAbandon},
	{name: "LostLeaseBeginsTheLaneAnew", needs: []need{ordered}, run: laneAnew},
	{name: "LaneDepthBoundsALane", needs: []need{ordered}, run: laneDepth},
	{name: "LeaseIsExtended", run: leaseExtended},
	{name: "AbandonedLeaseExpires", run: abandonedLease},
	{name: "SettlingTwiceIsHarmless", run: settleTwice},
	{name: "ReceiveObeysContext", run: receiveObeysContext},
	{name: "DrainFinishesHandlers", run: drainFinishes},
	{name: "DrainTimeoutRedelivers", run: drainTimeout},
	{name: "CloseIsIdempotent", run: closeIdempotent},
	{name: "LagIsTold", run: lagIsTold},
	{name: "LagOfLanesIsTold", needs: []need{ordered}, run: lagOfLanes},
	{name: "RespondersAreTold", run: respondersAreTold},
}

// Run runs the suite. Every test has a driver of its own.
func Run(t *testing.T, h Harness) {
	if h.Lease == 0 {
		h.Lease = 2 * time.Second
	}
	if h.Wait == 0 {
		h.Wait = time.Minute
	}
	known := make(map[string]bool)
	slots := make(chan struct{}, max(h.Parallel, 1)) // t.Parallel would allow no more than there are processors
	var wg sync.WaitGroup
	for _, tc := range suite {
		known[tc.name] = true
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			t.Run(tc.name, func(t *testing.T) { h.run(t, tc) })
		})
	}
	wg.Wait()
	for name := range h.Skip {
		if !known[name] {
			t.Errorf("Harness.Skip names %q, which is no test", name)
		}
	}
}

// tries is how often a test is made that fails while the machine stands still, with longer times each time.
const tries = 4

func (h Harness) run(t *testing.T, tc test) {
	if reason, ok := h.Skip[tc.name]; ok {
		t.Skip("the harness says: " + reason)
	}
	for try := range tries {
		e := &env{T: t, h: h, scale: 1 << try}
		e.h.Lease *= e.scale
		e.h.Wait *= e.scale
		e.try(tc)
		if e.skip != "" {
			t.Skip(e.skip)
		}
		stood := e.pulse.stood()
		if len(e.failures) == 0 {
			return
		}
		if try+1 < tries && stood > e.h.Lease/4 {
			t.Logf("nothing moved for %v, with leases of %v; it is tried again after %q", stood, e.h.Lease, e.failures)
			continue
		}
		for _, failure := range e.failures {
			t.Error(failure)
		}
		return
	}
}
