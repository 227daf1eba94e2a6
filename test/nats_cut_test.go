package test

import (
	"context"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/backstay-go/backstay/backend/nats/natsembed"
	"github.com/backstay-go/backstay/backend/nats/natspubsub"
	"github.com/backstay-go/backstay/pubsub"
)

func TestMain(m *testing.M) {
	// A proxy that is stopped while data is under way leaves goroutines of its own behind.
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2/toxics.(*ToxicStub).Run"),
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2/stream.(*ChanWriter).Write"))
}

// proxied starts a proxy to the server at url and returns it with its own address.
func proxied(t *testing.T, server *toxiproxy.ApiServer, name, url string) *toxiproxy.Proxy {
	t.Helper()
	proxy := toxiproxy.NewProxy(server, name, "127.0.0.1:0", url[len("nats://"):])
	require.NoError(t, proxy.Start())
	t.Cleanup(proxy.Stop)
	return proxy
}

func busThrough(t *testing.T, proxy *toxiproxy.Proxy) *pubsub.Bus {
	t.Helper()
	driver, err := natspubsub.Open(t.Context(), "nats://"+proxy.Listen, natspubsub.Config{Prefix: "cut", PublishTimeout: 700 * time.Millisecond},
		nats.ReconnectWait(20*time.Millisecond), nats.ReconnectJitter(0, 0))
	require.NoError(t, err)
	return pubsub.New(driver)
}

// TestConnectionsThatAreCutLoseNothingAcknowledged publishes and consumes through two proxies, which cut all their connections
// again and again. Whatever Publish has acknowledged is handled; a Publish that fails returns in bounded time.
func TestConnectionsThatAreCutLoseNothingAcknowledged(t *testing.T) {
	cuts := 12
	if os.Getenv("BACKSTAY_LONG") == "1" {
		cuts = 200
	}
	server, err := natsembed.Start(natsembed.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	require.NoError(t, err)
	defer func() { require.NoError(t, server.Close()) }()
	metrics := toxiproxy.NewMetricsContainer(nil)
	api := toxiproxy.NewServer(metrics, zerolog.Nop())
	toPublisher, toConsumer := proxied(t, api, "publisher", server.URL()), proxied(t, api, "consumer", server.URL())

	consumerBus := busThrough(t, toConsumer)
	consumer, err := consumerBus.Open(t.Context(), pubsub.Subscription{Topic: "orders", Group: "g", Lease: time.Second})
	require.NoError(t, err)
	var mu sync.Mutex
	handled := map[string]bool{}
	progress := make(chan struct{}, 1)
	var running sync.WaitGroup
	running.Go(func() {
		err := consumer.Run(context.Background(), func(_ context.Context, m pubsub.Message) error {
			mu.Lock()
			handled[m.ID] = true
			mu.Unlock()
			select {
			case progress <- struct{}{}:
			default:
			}
			return nil
		})
		if err != nil {
			t.Errorf("Run: %v", err)
		}
	})

	publisherBus := busThrough(t, toPublisher)
	acknowledged := publishWhileCutting(t, publisherBus, cuts, toPublisher, toConsumer)

	missing := func() int {
		mu.Lock()
		defer mu.Unlock()
		n := 0
		for id := range acknowledged {
			if !handled[id] {
				n++
			}
		}
		return n
	}
	deadline := time.After(2 * time.Minute)
	for missing() > 0 {
		select {
		case <-progress:
		case <-deadline:
			t.Fatalf("%d of %d acknowledged messages were not handled", missing(), len(acknowledged))
		}
	}
	require.NoError(t, publisherBus.Close())
	require.NoError(t, consumerBus.Close())
	running.Wait()
	t.Logf("%d messages acknowledged and handled over %d cuts", len(acknowledged), cuts)
}

// publishWhileCutting publishes one message after the other, and takes both proxies down and up again the given number of
// times. It returns the IDs that were acknowledged.
func publishWhileCutting(t *testing.T, bus *pubsub.Bus, cuts int, proxies ...*toxiproxy.Proxy) map[string]bool {
	t.Helper()
	acknowledged := map[string]bool{}
	failed := 0
	for cut := range cuts {
		for i := range 50 {
			id := strconv.Itoa(cut) + "-" + strconv.Itoa(i)
			if i == 25 {
				for _, proxy := range proxies {
					proxy.Stop()
				}
			}
			begun := time.Now()
			err := bus.Publish(t.Context(), pubsub.Message{ID: id, Topic: "orders", Key: id, Payload: []byte(id)})
			require.Less(t, time.Since(begun), 10*time.Second, "Publish must return in bounded time")
			if i == 25 {
				for _, proxy := range proxies {
					require.NoError(t, proxy.Start())
				}
			}
			if err == nil {
				acknowledged[id] = true
			} else {
				failed++
			}
		}
	}
	require.Positive(t, failed, "no cut was felt: this test shows nothing")
	require.NotEmpty(t, acknowledged, "nothing was acknowledged: this test shows nothing")
	return acknowledged
}
