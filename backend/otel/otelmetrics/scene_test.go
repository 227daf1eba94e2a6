package otelmetrics_test

import (
	"context"
	"iter"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/backstay-go/backstay/backend/otel/otelmetrics"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/cache"
	"github.com/backstay-go/backstay/fallback"
	"github.com/backstay-go/backstay/hedge"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/pubsub/mempubsub"
	"github.com/backstay-go/backstay/pubsub/requestreply"
	"github.com/backstay-go/backstay/ratelimit"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/memsaga"
	"github.com/backstay-go/backstay/timeout"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// thing is a user's own object.
type thing struct {
	kind, name string
	mu         sync.Mutex
	metrics    map[string]float64
	broken     bool
}

func (o *thing) Describe() (kind, name string, config any) { return o.kind, o.name, nil }

func (o *thing) Metrics() iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.broken {
			panic("out of order")
		}
		for name, value := range o.metrics {
			if !yield(name, value) {
				return
			}
		}
	}
}

func (o *thing) set(name string, value float64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.metrics[name] = value
}

// Stores of which nothing is asked.
type (
	noStore struct{ outbox.Store[int] }
	noInbox struct{ outbox.InboxStore[int] }
	noQueue struct{ outbox.Queue }
)

// oneOfEach is an object of every kind in the root module.
func oneOfEach(t *testing.T) []otelmetrics.Object {
	t.Helper()
	load := func(context.Context, string) (int, error) { return 1, nil }
	write := func(context.Context, []cache.Write[string, int]) error { return nil }
	bus := pubsub.New(mempubsub.New(mempubsub.Config{}))
	consumer, err := bus.Open(t.Context(), pubsub.Subscription{Topic: "orders", Group: "billing"})
	require.NoError(t, err)
	require.Eventually(t, func() bool { // asked by the first look, and known to a later one
		for name, value := range consumer.Metrics() {
			if name == "lag" {
				return !math.IsNaN(value)
			}
		}
		return false
	}, time.Minute, time.Millisecond)
	client, err := requestreply.NewClient[int, int](t.Context(), bus, requestreply.ClientConfig{Topic: "sums"})
	require.NoError(t, err)
	def := saga.MustDefine("trip", 1, saga.Step[int]{Name: "book", Do: func(context.Context, *int) error { return nil }})
	runner, err := saga.NewRunner(memsaga.New(), saga.Config{}, def)
	require.NoError(t, err)
	through := cache.New(load, cache.Config{Name: "prices"})
	behind := cache.NewWriteBehind(load, write, cache.Config{Name: "stock"}, cache.WriteBehindConfig{})
	t.Cleanup(func() {
		require.NoError(t, client.Close())
		require.NoError(t, bus.Close())
		require.NoError(t, through.Close())
		require.NoError(t, behind.Close(context.Background()))
	})
	return []otelmetrics.Object{
		breaker.New(breaker.Config{Name: "bank"}), breaker.NewSet[string](breaker.SetConfig{}),
		bulkhead.New(bulkhead.Config{Name: "bank"}), bulkhead.NewSet[string](bulkhead.SetConfig{}),
		ratelimit.New(ratelimit.Config{Name: "api", Rate: 1}), ratelimit.NewSet[string](ratelimit.SetConfig{Name: "tenants", Each: ratelimit.Config{Rate: 1}}),
		retry.New(retry.Config{}), retry.NewBudget(retry.BudgetConfig{}), timeout.New(timeout.Config{}), hedge.New(hedge.Config{}),
		fallback.New(fallback.Config{}), through, behind, bus, consumer, client,
		requestreply.NewServer(bus, requestreply.ServerConfig{}, func(_ context.Context, n int) (int, error) { return n, nil }),
		outbox.New[int](noStore{}, outbox.Config{}), outbox.NewRelay(noQueue{}, bus, outbox.RelayConfig{}),
		outbox.NewInbox[int](noInbox{}, outbox.InboxConfig{}), runner,
	}
}
