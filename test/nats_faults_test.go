package test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/nats/natsembed"
	"github.com/backstay-go/backstay/backend/nats/natspubsub"
	"github.com/backstay-go/backstay/pubsub"
)

// proxyFaults are what a proxy does to the connections through it, and the end of that.
var proxyFaults = map[string]func(t *testing.T, p *toxiproxy.Proxy){
	"cut": func(t *testing.T, p *toxiproxy.Proxy) {
		p.Stop()
		require.NoError(t, p.Start())
	},
	"stalled": func(t *testing.T, p *toxiproxy.Proxy) { withToxic(t, p, "timeout", time.Second) },
	"reset":   func(t *testing.T, p *toxiproxy.Proxy) { withToxic(t, p, "reset_peer", 20*time.Millisecond) },
}

// withToxic has p apply the toxic both ways for a while. Connections that a stall has robbed of data end with it.
func withToxic(t *testing.T, p *toxiproxy.Proxy, kind string, d time.Duration) {
	t.Helper()
	for _, way := range []string{"upstream", "downstream"} {
		_, err := p.Toxics.AddToxicJson(strings.NewReader(fmt.Sprintf(
			`{"name":%q,"type":%q,"stream":%q,"attributes":{"timeout":0}}`, way, kind, way)))
		require.NoError(t, err)
	}
	<-time.After(d)
	for _, way := range []string{"upstream", "downstream"} {
		require.NoError(t, p.Toxics.RemoveToxic(context.Background(), way))
	}
}

// TestFaultyProxiesLoseNothingAcknowledged puts a proxy before the publisher or before the consumer, and injects one kind
// of fault again and again while messages flow. Whatever Publish has acknowledged is handled.
func TestFaultyProxiesLoseNothingAcknowledged(t *testing.T) {
	faults, between := 2, 100
	if os.Getenv("BACKSTAY_LONG") == "1" {
		faults, between = 100, 500
	}
	api := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	var all sync.WaitGroup // they wait more than they work
	for name, fault := range proxyFaults {
		for _, side := range []string{"publisher", "consumer"} {
			all.Go(func() {
				t.Run(side+" "+name, func(t *testing.T) {
					server, err := natsembed.Start(natsembed.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
					require.NoError(t, err)
					t.Cleanup(func() { require.NoError(t, server.Close()) })
					p := toxiproxy.NewProxy(api, t.Name(), fmt.Sprint("127.0.0.1:", steadyPort(t)), server.URL()[len("nats://"):])
					require.NoError(t, p.Start())
					t.Cleanup(p.Stop)
					publisher, consumer := server.URL(), server.URL()
					if side == "publisher" {
						publisher = "nats://" + p.Listen
					} else {
						consumer = "nats://" + p.Listen
					}
					f := startFlow(t, publisher, consumer)
					for range faults {
						f.more(t, between)
						require.Eventually(t, f.publishing.Load, 2*time.Minute, 100*time.Microsecond)
						f.struck++
						fault(t, p)
					}
					f.more(t, between)
					f.finish(t)
				})
			})
		}
	}
	all.Wait()
}

// steadyPort is free, and below the ports that the system gives to connections, so that none takes it while its owner is
// down for a moment.
func steadyPort(t *testing.T) int {
	t.Helper()
	for {
		l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", 20_000+rand.IntN(10_000)))
		if err != nil {
			continue
		}
		require.NoError(t, l.Close())
		return l.Addr().(*net.TCPAddr).Port
	}
}

// flow is messages on their way from a bus to another.
type flow struct {
	publisher, consumer *pubsub.Bus
	stopping, published chan struct{}
	stop                func()
	running             sync.WaitGroup
	publishing          atomic.Bool
	struck              int // faults while messages were under way

	mu      sync.Mutex
	acked   map[string]bool
	handled map[string]bool
	failed  int
	runErr  error
	changed chan struct{} // capacity 1
}

func startFlow(t *testing.T, publisherURL, consumerURL string) *flow {
	t.Helper()
	f := &flow{
		publisher: patientBus(t, publisherURL), consumer: patientBus(t, consumerURL), stopping: make(chan struct{}), published: make(chan struct{}),
		acked: map[string]bool{}, handled: map[string]bool{}, changed: make(chan struct{}, 1),
	}
	f.stop = sync.OnceFunc(func() { close(f.stopping) })
	c, err := f.consumer.Open(eventually(t), pubsub.Subscription{Topic: "orders", Group: "g", Lease: 2 * time.Second})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() {
		f.stop()
		cancel()
		f.running.Wait()
		require.NoError(t, errors.Join(f.runErr, f.publisher.Close(), f.consumer.Close()))
	})
	f.running.Go(func() { f.runErr = c.Run(ctx, f.handle) })
	f.running.Go(func() {
		defer close(f.published)
		f.publish()
	})
	return f
}

// patientBus outlasts every fault.
func patientBus(t *testing.T, url string) *pubsub.Bus {
	t.Helper()
	driver, err := natspubsub.Open(eventually(t), url, natspubsub.Config{Prefix: "flow", PublishTimeout: 2 * time.Second},
		nats.ReconnectWait(20*time.Millisecond), nats.ReconnectJitter(0, 0))
	require.NoError(t, err)
	return pubsub.New(driver)
}

func (f *flow) handle(_ context.Context, m pubsub.Message) error {
	f.note(func() { f.handled[m.ID] = true })
	return nil
}

// publish is never far ahead of the consumer.
func (f *flow) publish() {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for i := 0; ; i++ {
		for wait := true; wait; wait = f.ahead() > 500 {
			select {
			case <-f.stopping:
				return
			case <-tick.C:
			}
		}
		batch := make([]pubsub.Message, 10)
		for j := range batch {
			batch[j] = pubsub.Message{ID: fmt.Sprint(i, "-", j), Topic: "orders", Payload: []byte("order")}
		}
		f.publishing.Store(true)
		err := f.publisher.Publish(context.Background(), batch...)
		f.publishing.Store(false)
		lost := map[int]bool{}
		if pe, ok := errors.AsType[*pubsub.PublishError](err); ok {
			for _, failure := range pe.Failed {
				lost[failure.Index] = true
			}
		}
		f.note(func() {
			f.failed += len(lost)
			for j := range batch {
				if !lost[j] {
					f.acked[batch[j].ID] = true
				}
			}
		})
	}
}

func (f *flow) ahead() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.acked) - len(f.handled)
}

func (f *flow) note(change func()) {
	f.mu.Lock()
	change()
	f.mu.Unlock()
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

// await returns when done does, which is called with the mutex held.
func (f *flow) await(t *testing.T, what string, done func() bool) {
	t.Helper()
	for {
		f.mu.Lock()
		ok := done()
		f.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-f.changed:
		case <-time.After(2 * time.Minute): // since anything moved
			f.mu.Lock()
			defer f.mu.Unlock()
			t.Fatalf("%s: %d messages acknowledged, %d handled, %d failed", what, len(f.acked), len(f.handled), f.failed)
		}
	}
}

// more returns when n messages more are acknowledged, and n more handled: both sides have recovered.
func (f *flow) more(t *testing.T, n int) {
	t.Helper()
	f.mu.Lock()
	acked, handled := len(f.acked)+n, len(f.handled)+n
	f.mu.Unlock()
	f.await(t, "it does not recover", func() bool { return len(f.acked) >= acked && len(f.handled) >= handled })
}

// finish stops publishing and returns when everything that was acknowledged is handled.
func (f *flow) finish(t *testing.T) {
	t.Helper()
	f.stop()
	<-f.published
	f.await(t, "acknowledged messages are lost", func() bool {
		if len(f.handled) < len(f.acked) {
			return false
		}
		for id := range f.acked {
			if !f.handled[id] {
				return false
			}
		}
		return true
	})
	t.Logf("%d messages acknowledged and handled, %d failed, %d faults while messages were under way", len(f.acked), f.failed, f.struck)
}
