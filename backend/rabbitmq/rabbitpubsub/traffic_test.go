package rabbitpubsub_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/pubsub"
)

// traffic publishes through one driver and receives through another, or the same, while faults are injected.
type traffic struct {
	publisher *driver
	received  *collector
	cancel    context.CancelFunc
	ended     <-chan error // of the consumer
	stop      chan struct{}
	progress  chan struct{} // capacity 1
	stopped   chan struct{}

	acked       atomic.Int64
	outstanding atomic.Bool  // a Publish is under way
	slowest     atomic.Int64 // of the calls to Publish
	ids         []string     // acknowledged; for the publisher, until it has stopped
	struck      int          // faults while a Publish was under way
}

// faultLease is short, so that what a fault has lost comes again soon.
const faultLease = 2 * time.Second

func startTraffic(t *testing.T, publisher, consumer *driver, order bool) *traffic {
	t.Helper()
	tr := &traffic{publisher: publisher, stop: make(chan struct{}), progress: make(chan struct{}, 1), stopped: make(chan struct{})}
	r := open(t, consumer, func(s *pubsub.Subscription) { s.Ordered, s.Lease = order, faultLease })
	var ctx context.Context
	ctx, tr.cancel = context.WithCancel(context.Background())
	t.Cleanup(tr.cancel)
	tr.received, tr.ended = collect(ctx, r)
	tr.received.ordered = order
	go tr.publish()
	t.Cleanup(tr.halt)
	return tr
}

const (
	// backlog is how many messages the publisher is ahead at most.
	backlog = 500
	// keys is the number of keys, and of messages in a batch, one of each.
	keys = 10
)

func (tr *traffic) publish() {
	defer close(tr.stopped)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		for wait := true; wait; wait = tr.acked.Load() > int64(tr.received.count()+backlog) {
			select {
			case <-tr.stop:
				return
			case <-tick.C:
			}
		}
		batch := make([]pubsub.Message, keys)
		for j := range batch {
			batch[j] = message(fmt.Sprintf("%d-%d", i, j), fmt.Sprint("k", j))
		}
		begin := time.Now()
		tr.outstanding.Store(true)
		errs := tr.publisher.Publish(context.Background(), batch)
		tr.outstanding.Store(false)
		tr.slowest.Store(max(tr.slowest.Load(), int64(time.Since(begin))))
		for j := range batch {
			if errs == nil || errs[j] == nil {
				tr.ids = append(tr.ids, batch[j].ID)
			}
		}
		tr.acked.Store(int64(len(tr.ids)))
		select {
		case tr.progress <- struct{}{}:
		default:
		}
	}
}

// more returns when n messages more have been acknowledged, and n more received: both sides have recovered.
func (tr *traffic) more(t *testing.T, n int) {
	t.Helper()
	acked, received := tr.acked.Load()+int64(n), tr.received.count()+n
	for tr.acked.Load() < acked || tr.received.count() < received {
		select {
		case <-tr.progress:
		case <-tr.received.more:
		case err := <-tr.ended:
			t.Fatalf("Receive: %v", err)
		case <-time.After(patience):
			t.Fatalf("it does not recover: %d messages were acknowledged, %d received; want %d and %d",
				tr.acked.Load(), tr.received.count(), acked, received)
		}
	}
}

// struckAt returns while a Publish is under way.
func (tr *traffic) awaitPublish(t *testing.T) {
	t.Helper()
	require.Eventually(t, tr.outstanding.Load, patience, 100*time.Microsecond)
	tr.struck++
}

// strike injects faults while a Publish is under way, and lets messages pass between them. There are more of both in the
// long form.
func (tr *traffic) strike(t *testing.T, faults, between int, fault func()) {
	t.Helper()
	if long() {
		faults, between = 20, 500
	}
	for range faults {
		tr.more(t, between)
		tr.awaitPublish(t)
		fault()
	}
	tr.more(t, between)
}

func (tr *traffic) halt() {
	select {
	case <-tr.stop:
	default:
		close(tr.stop)
	}
	<-tr.stopped
}

// finish stops publishing, and fails unless everything that was acknowledged has come, in order if there is order.
func (tr *traffic) finish(t *testing.T) {
	t.Helper()
	tr.halt()
	tr.received.await(t, tr.ids)
	tr.cancel()
	require.ErrorIs(t, <-tr.ended, context.Canceled)
	require.Empty(t, tr.received.misplaced, "came before its predecessor")
	s := tr.publisher.Stats()
	t.Logf("%d messages acknowledged and received through %d faults during a Publish; %d in doubt, slowest Publish %v",
		len(tr.ids), tr.struck, s.InDoubt, time.Duration(tr.slowest.Load()))
}

// collector counts what a receiver gets and acknowledges.
type collector struct {
	ordered bool

	mu        sync.Mutex
	seen      map[string]bool
	last      map[string]int // by key, the latest batch
	misplaced []string
	more      chan struct{} // capacity 1
}

func collect(ctx context.Context, r pubsub.Receiver) (c *collector, ended <-chan error) {
	c = &collector{seen: make(map[string]bool), last: make(map[string]int), more: make(chan struct{}, 1)}
	end := make(chan error, 1)
	go func() { end <- c.run(ctx, r) }()
	return c, end
}

func (c *collector) run(ctx context.Context, r pubsub.Receiver) error {
	for {
		ds, err := r.Receive(ctx, 100)
		if err != nil {
			return err
		}
		verdicts := make([]pubsub.Verdict, len(ds))
		c.mu.Lock()
		for i := range ds {
			c.note(&ds[i])
			verdicts[i] = pubsub.Verdict{Token: ds[i].Token, Kind: pubsub.Ack}
		}
		c.mu.Unlock()
		_ = r.Settle(ctx, verdicts) // after a failure they come again
		select {
		case c.more <- struct{}{}:
		default:
		}
	}
}

// note checks the order over first occurrences: the batches of a key come in the order of their numbers, with gaps where a
// Publish was not accepted.
func (c *collector) note(d *pubsub.Delivery) {
	var batch, key int
	if _, err := fmt.Sscanf(d.ID, "%d-%d", &batch, &key); err == nil && !c.seen[d.ID] {
		if batch < c.last[d.Key] && c.ordered {
			c.misplaced = append(c.misplaced, fmt.Sprintf("%s behind %d", d.ID, c.last[d.Key]))
		}
		c.last[d.Key] = max(c.last[d.Key], batch)
	}
	c.seen[d.ID] = true
}

func (c *collector) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.seen)
}

// await returns when all ids have come.
func (c *collector) await(t *testing.T, ids []string) {
	t.Helper()
	for {
		c.mu.Lock()
		missing := 0
		for _, id := range ids {
			if !c.seen[id] {
				missing++
			}
		}
		c.mu.Unlock()
		if missing == 0 {
			return
		}
		select {
		case <-c.more:
		case <-time.After(patience): // since anything came
			t.Fatalf("%d of %d acknowledged messages are lost", missing, len(ids))
		}
	}
}
