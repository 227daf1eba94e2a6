package kafkapubsub_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/backstay-go/backstay/backend/kafka/kafkapubsub"
	"github.com/backstay-go/backstay/pubsub"
)

// witness sees every handler of every member.
type witness struct {
	mu      sync.Mutex
	running map[string]int // handlers per key
	times   map[string]int // that a message was handled
	next    map[string]int // number that the key waits for
	faults  []string
	more    chan struct{} // capacity 1
}

func newWitness() *witness {
	return &witness{running: make(map[string]int), times: make(map[string]int), next: make(map[string]int), more: make(chan struct{}, 1)}
}

// handle is a handler that takes a moment, so that rebalances find it at work.
func (w *witness) handle(ctx context.Context, m pubsub.Message) error {
	n, _ := strconv.Atoi(string(m.Payload))
	w.mu.Lock()
	if w.running[m.Key]++; w.running[m.Key] > 1 {
		w.faults = append(w.faults, fmt.Sprintf("%s began while another of its key was handled", m.ID))
	}
	if n > w.next[m.Key] {
		w.faults = append(w.faults, fmt.Sprintf("%s came before number %d", m.ID, w.next[m.Key]))
	}
	w.mu.Unlock()
	select {
	case <-ctx.Done():
	case <-time.After(time.Duration(rand.IntN(4_000)) * time.Microsecond):
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running[m.Key]--
	w.times[m.ID]++
	w.next[m.Key] = max(w.next[m.Key], n+1)
	select {
	case w.more <- struct{}{}:
	default:
	}
	return nil
}

func (w *witness) handled() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.times)
}

// await returns when n messages were handled.
func (w *witness) await(t *testing.T, n int) {
	t.Helper()
	for {
		have := w.handled()
		if have >= n {
			return
		}
		select {
		case <-w.more:
		case <-time.After(patience): // since anything came
			t.Fatalf("%d of %d messages were handled", have, n)
		}
	}
}

// member is a process in miniature: a driver, a bus and a consumer.
type member struct {
	bus   *pubsub.Bus
	ended chan error
	stop  context.CancelFunc
}

func join(t *testing.T, d *kafkapubsub.Driver, s pubsub.Subscription, h pubsub.Handler) *member {
	t.Helper()
	bus := pubsub.New(d)
	c, err := bus.Open(soon(t), s)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	m := &member{bus: bus, ended: make(chan error, 1), stop: cancel}
	t.Cleanup(cancel)
	go func() { m.ended <- c.Run(ctx, h) }()
	return m
}

func (m *member) leave(t *testing.T) {
	t.Helper()
	require.NoError(t, m.end(t))
}

// end is leave after faults, when the last acknowledgements may be in doubt.
func (m *member) end(t *testing.T) (err error) {
	t.Helper()
	m.stop()
	select {
	case err = <-m.ended:
	case <-time.After(patience):
		t.Fatal("the member does not leave")
	}
	require.NoError(t, m.bus.Close())
	return err
}

// TestGuaranteeRebalanceLosesNothing has members come and go in the middle of handlers: nothing is lost, no key is handled
// by two at a time, and its order holds.
func TestGuaranteeRebalanceLosesNothing(t *testing.T) {
	t.Parallel()
	changes := 15
	if long() {
		changes = 100
	}
	c := cluster(t)
	cfg := kafkapubsub.Config{Prefix: "rebalance.", Partitions: 8, CommitInterval: 50 * time.Millisecond}
	publisher := newDriver(t, c, cfg)
	w := newWitness()
	s := pubsub.Subscription{
		Topic: "t", Group: "g", Ordered: true, Start: "start", Lease: patience, DrainTimeout: patience, Concurrency: 4,
	}
	var members []*member
	enter := func() { members = append(members, join(t, newDriver(t, c, cfg), s, w.handle)) }
	enter()

	const perChange, keys = 200, 40
	published := 0
	for change := range changes {
		batch := make([]pubsub.Message, perChange)
		for i := range batch {
			key := "k" + strconv.Itoa(i%keys)
			n := published/keys + i/keys
			batch[i] = pubsub.Message{ID: fmt.Sprintf("%s-%d", key, n), Topic: "t", Key: key, Payload: []byte(strconv.Itoa(n)), Time: time.Now()}
		}
		require.Nil(t, publisher.Publish(soon(t), batch))
		published += perChange
		w.await(t, published-perChange*3/4) // some are being handled now
		if len(members) < 2 || change%3 != 2 && len(members) < 4 {
			enter()
		} else {
			i := rand.IntN(len(members))
			members[i].leave(t)
			members = append(members[:i], members[i+1:]...)
		}
	}
	w.await(t, published)
	for _, m := range members {
		m.leave(t)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	require.Empty(t, w.faults)
	twice := 0
	for _, n := range w.times {
		twice += n - 1
	}
	t.Logf("%d changes of members, %d messages, %d of them handled twice", changes, published, twice)
	require.Zero(t, twice, "an orderly rebalance hands nothing out again that was settled")
}

// TestPartitionsAdded checks that a group picks up partitions that are added to its topic, from their first message on.
func TestPartitionsAdded(t *testing.T) {
	t.Parallel()
	c := cluster(t)
	d := newDriver(t, c, kafkapubsub.Config{Prefix: "more.", Partitions: 2}, kgo.MetadataMaxAge(200*time.Millisecond))
	w := newWitness()
	m := join(t, d, pubsub.Subscription{Topic: "t", Group: "g", Start: "end", Lease: patience}, w.handle)
	publish := func(round string) {
		var batch []pubsub.Message
		for i := range 60 {
			batch = append(batch, message(fmt.Sprint(round, "-", i), fmt.Sprint(round, "-", i)))
		}
		require.Nil(t, newDriver(t, c, kafkapubsub.Config{Prefix: "more."}).Publish(soon(t), batch))
	}
	publish("before")
	w.await(t, 60)
	made, err := kadm.NewClient(client(t, c)).CreatePartitions(soon(t), 4, "more.t") // to two
	require.NoError(t, err)
	require.NoError(t, made.Error())
	publish("after") // before the member can know of them
	w.await(t, 120)
	m.leave(t)
	require.Empty(t, w.faults)
}
