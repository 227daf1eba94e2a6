package kafkapubsub_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/backstay-go/backstay/backend/kafka/kafkapubsub"
	"github.com/backstay-go/backstay/pubsub"
)

// traffic publishes through one driver and consumes through another while faults are injected.
type traffic struct {
	publisher *kafkapubsub.Driver
	consumer  *member
	stop      chan struct{}
	stopped   chan struct{}
	progress  chan struct{} // capacity 1

	acked atomic.Int64
	ids   []string // acknowledged; for the publisher, until it has stopped
	mu    sync.Mutex
	seen  map[string]int
}

func startTraffic(t *testing.T, publisher, consumer *kafkapubsub.Driver, ordered bool) *traffic {
	t.Helper()
	tr := &traffic{
		publisher: publisher, stop: make(chan struct{}), stopped: make(chan struct{}), progress: make(chan struct{}, 1),
		seen: make(map[string]int),
	}
	s := pubsub.Subscription{
		Topic: "t", Group: "g", Start: "start", Ordered: ordered, Lease: faultLease, DrainTimeout: patience,
		BackoffInitial: time.Millisecond, BackoffMax: 10 * time.Millisecond,
	}
	tr.consumer = join(t, consumer, s, func(_ context.Context, m pubsub.Message) error {
		tr.saw(m.ID)
		return nil
	})
	go tr.publish()
	t.Cleanup(tr.halt)
	return tr
}

// faultLease is short, so that what a fault has lost comes again soon.
const faultLease = 4 * time.Second

func (tr *traffic) saw(id string) {
	tr.mu.Lock()
	tr.seen[id]++
	tr.mu.Unlock()
	tr.note()
}

func (tr *traffic) note() {
	select {
	case tr.progress <- struct{}{}:
	default:
	}
}

func (tr *traffic) count() int {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return len(tr.seen)
}

func (tr *traffic) publish() {
	defer close(tr.stopped)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		select {
		case <-tr.stop:
			return
		case <-tick.C:
		}
		batch := make([]pubsub.Message, 10)
		for j := range batch {
			batch[j] = message(fmt.Sprintf("%d-%d", i, j), fmt.Sprint("k", j))
		}
		errs := tr.publisher.Publish(context.Background(), batch)
		for j := range batch {
			if errs == nil || errs[j] == nil {
				tr.ids = append(tr.ids, batch[j].ID)
			}
		}
		tr.acked.Store(int64(len(tr.ids)))
		tr.note()
	}
}

// more returns when n messages more have been acknowledged, and n more received: both sides have recovered.
func (tr *traffic) more(t *testing.T, n int) {
	t.Helper()
	acked, received := tr.acked.Load()+int64(n), tr.count()+n
	for tr.acked.Load() < acked || tr.count() < received {
		select {
		case <-tr.progress:
		case <-time.After(patience):
			t.Fatalf("it does not recover: %d messages were acknowledged, %d received; want %d and %d",
				tr.acked.Load(), tr.count(), acked, received)
		}
	}
}

func (tr *traffic) halt() {
	select {
	case <-tr.stop:
	default:
		close(tr.stop)
	}
	<-tr.stopped
}

// finish stops publishing, and fails unless everything that was acknowledged has come.
func (tr *traffic) finish(t *testing.T) {
	t.Helper()
	tr.halt()
	for {
		missing := 0
		tr.mu.Lock()
		for _, id := range tr.ids {
			if tr.seen[id] == 0 {
				missing++
			}
		}
		tr.mu.Unlock()
		if missing == 0 {
			break
		}
		select {
		case <-tr.progress:
		case <-time.After(patience):
			t.Fatalf("%d of %d acknowledged messages are lost", missing, len(tr.ids))
		}
	}
	if err := tr.consumer.end(t); err != nil {
		require.ErrorIs(t, err, pubsub.ErrInDoubt)
	}
	twice := 0
	for _, n := range tr.seen {
		twice += n - 1
	}
	st := tr.publisher.Stats()
	t.Logf("%d messages acknowledged and received; %d in doubt, %d repetitions", len(tr.ids), st.InDoubt, twice)
}

// wire makes the connections of clients, to be cut or to hang.
type wire struct {
	mu      sync.Mutex
	conns   map[*wireConn]struct{}
	hanging chan struct{} // closed when bytes may pass
}

func newWire() *wire {
	w := &wire{conns: make(map[*wireConn]struct{}), hanging: make(chan struct{})}
	close(w.hanging)
	return w
}

func (w *wire) option() kgo.Opt {
	return kgo.Dialer(func(ctx context.Context, network, host string) (net.Conn, error) {
		var d net.Dialer
		conn, err := d.DialContext(ctx, network, host)
		if err != nil {
			return nil, err
		}
		wc := &wireConn{Conn: conn, w: w, closed: make(chan struct{})}
		w.mu.Lock()
		w.conns[wc] = struct{}{}
		w.mu.Unlock()
		return wc, nil
	})
}

// cut resets all connections.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.conns {
		_ = c.Conn.(*net.TCPConn).SetLinger(0)
		_ = c.Conn.Close()
	}
	clear(w.conns)
}

// hang stops all bytes, in both directions, until resume is called.
func (w *wire) hang() (resume func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	gate := make(chan struct{})
	w.hanging = gate
	return sync.OnceFunc(func() { close(gate) })
}

func (w *wire) gate() chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.hanging
}

type wireConn struct {
	net.Conn
	w      *wire
	once   sync.Once
	closed chan struct{}
}

func (c *wireConn) pass() error {
	select {
	case <-c.w.gate():
		return nil
	case <-c.closed:
		return net.ErrClosed
	}
}

func (c *wireConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if gateErr := c.pass(); gateErr != nil {
		return 0, gateErr
	}
	return n, err
}

func (c *wireConn) Write(b []byte) (int, error) {
	if err := c.pass(); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

func (c *wireConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	c.w.mu.Lock()
	delete(c.w.conns, c)
	c.w.mu.Unlock()
	return c.Conn.Close()
}

// faults is how many are injected.
func faults() int {
	if long() {
		return 100
	}
	return 8
}

func TestGuaranteeCutConnectionLosesNothing(t *testing.T) {
	t.Parallel()
	for _, ordered := range []bool{false, true} {
		t.Run(fmt.Sprintf("ordered %v", ordered), func(t *testing.T) {
			c, w := cluster(t), newWire()
			cfg := kafkapubsub.Config{Prefix: "cut.", Partitions: 4, CommitInterval: 20 * time.Millisecond}
			tr := startTraffic(t, newDriver(t, c, cfg, w.option()), newDriver(t, c, cfg, w.option()), ordered)
			for range faults() {
				tr.more(t, 100)
				w.cut()
			}
			tr.more(t, 100)
			tr.finish(t)
		})
	}
}

// TestGuaranteeHangingConnectionLosesNothing stops the bytes for longer than the session lasts: the member is thrown out,
// and must not go on with what it held.
func TestGuaranteeHangingConnectionLosesNothing(t *testing.T) {
	t.Parallel()
	c, w := cluster(t), newWire()
	cfg := kafkapubsub.Config{
		Prefix: "hang.", Partitions: 4, CommitInterval: 20 * time.Millisecond, SessionTimeout: 2 * time.Second, PublishTimeout: time.Second,
	}
	tr := startTraffic(t, newDriver(t, c, cfg, w.option()), newDriver(t, c, cfg, w.option()), true)
	tr.more(t, 100)
	other := join(t, newDriver(t, c, cfg), pubsub.Subscription{
		Topic: "t", Group: "g", Start: "start", Ordered: true, Lease: faultLease, DrainTimeout: patience},
		func(_ context.Context, m pubsub.Message) error { tr.saw(m.ID); return nil })
	tr.more(t, 100)
	resume := w.hang()
	timer := time.NewTimer(2 * faultLease)
	defer timer.Stop()
	<-timer.C
	resume()
	tr.more(t, 100)
	tr.finish(t)
	if err := other.end(t); err != nil {
		require.ErrorIs(t, err, pubsub.ErrInDoubt)
	}
	require.Positive(t, tr.publisher.Stats().InDoubt, "nothing was under way")
}
