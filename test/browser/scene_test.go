package browser

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/cache"
	"github.com/backstay-go/backstay/console"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/pubsub/mempubsub"
	"github.com/backstay-go/backstay/ratelimit"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/memsaga"
)

var errDown = errors.New("the bank is down")

// gauge is an object of a service's own.
type gauge struct {
	kind, name string
	config     any
	value      atomic.Int64
}

func (g *gauge) Describe() (kind, name string, config any) { return g.kind, g.name, g.config }

func (g *gauge) Metrics() iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) { yield("level", float64(g.value.Load())) }
}

// thing has one metric.
type thing struct{ kind, metric string }

func (o *thing) Describe() (kind, name string, config any) { return o.kind, o.metric, nil }

func (o *thing) Metrics() iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) { yield(o.metric, 1) }
}

// numbers is an object with several metrics that stay.
type numbers struct {
	kind string
	list []any // names and values by turns
}

func (o *numbers) Describe() (kind, name string, config any) { return o.kind, o.kind, nil }

func (o *numbers) Metrics() iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) {
		for i := 0; i < len(o.list); i += 2 {
			if !yield(o.list[i].(string), float64(o.list[i+1].(int))) {
				return
			}
		}
	}
}

// queue is an outbox with nothing but a backlog.
type queue struct{ pending, parked atomic.Int64 }

func (q *queue) Lease(context.Context, string, time.Duration) (outbox.Leases, error) {
	return outbox.Leases{Owner: "one", Share: outbox.Buckets}, nil
}
func (q *queue) Release(context.Context, outbox.Leases) error { return nil }
func (q *queue) Fetch(context.Context, outbox.Leases, int) ([]outbox.Record, error) {
	return nil, nil
}
func (q *queue) Settle(context.Context, outbox.Leases, []outbox.Record, []outbox.Failure) error {
	return nil
}
func (q *queue) Backlog(context.Context) (outbox.Backlog, error) {
	b := outbox.Backlog{Pending: q.pending.Load(), Parked: q.parked.Load()}
	if b.Pending > 0 {
		b.OldestAge = 4 * time.Second
	}
	return b, nil
}

// scene is one object of each pattern, and a console that shows them.
type scene struct {
	console  *console.Console
	breaker  *breaker.Breaker
	budget   *retry.Budget
	retry    *retry.Retrier
	bulkhead *bulkhead.Bulkhead
	limiter  *ratelimit.Limiter
	cache    *cache.Cache[int, int]
	bus      *pubsub.Bus
	consumer *pubsub.Consumer
	backlog  *queue
	saga     *saga.Runner
	trips    *saga.Definition[int]
	own      *gauge
}

func newScene(t *testing.T, options ...console.Option) *scene {
	t.Helper()
	s := &scene{backlog: &queue{}, own: &gauge{kind: "boiler", name: "cellar", config: map[string]any{"password": "hunter2", "limit": 90}}}
	s.breaker = breaker.New(breaker.Config{Name: "bank", ConsecutiveFailures: 2, OpenDelay: time.Hour})
	s.budget = retry.NewBudget(retry.BudgetConfig{Name: "bank", Burst: 5})
	s.retry = retry.New(retry.Config{Name: "bank", InitialInterval: -1}, retry.WithBudget(s.budget))
	s.bulkhead = bulkhead.New(bulkhead.Config{Name: "reports", MaxConcurrent: 4})
	s.limiter = ratelimit.New(ratelimit.Config{Name: "mail", Rate: 0.001, Burst: 3})
	s.cache = cache.New(func(_ context.Context, k int) (int, error) { return k, nil }, cache.Config{Name: "catalogue", TTL: time.Hour})
	t.Cleanup(func() { require.NoError(t, s.cache.Close()) })
	s.openBus(t)
	relay := outbox.NewRelay(s.backlog, s.bus, outbox.RelayConfig{Name: "orders", Lease: 2 * time.Second})
	background(t, relay.Run)
	s.openSagas(t)
	s.console = console.New(console.Config{Name: "orders"}, options...)
	t.Cleanup(s.console.Close)
	s.console.Add(s.breaker, s.budget, s.retry, s.bulkhead, s.limiter, s.cache, s.consumer, relay, s.saga, s.own)
	return s
}

// background runs something until the test ends.
func background(t *testing.T, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
}

func (s *scene) openBus(t *testing.T) {
	s.bus = pubsub.New(mempubsub.New(mempubsub.Config{}))
	t.Cleanup(func() { require.NoError(t, s.bus.Close()) })
	var err error
	s.consumer, err = s.bus.Open(t.Context(), pubsub.Subscription{Topic: "orders", Group: "mail"})
	require.NoError(t, err)
	background(t, func(ctx context.Context) error {
		return s.consumer.Run(ctx, func(_ context.Context, m pubsub.Message) error {
			if string(m.Payload) == "bad" {
				return pubsub.DeadLetter(errors.New("it is bad"))
			}
			return nil
		})
	})
}

func (s *scene) openSagas(t *testing.T) {
	var err error
	s.trips, err = saga.Define("trip", 1,
		saga.Step[int]{
			Name: "flight", Do: func(context.Context, *int) error { return nil },
			Undo: func(_ context.Context, n *int) error {
				if *n < -1 {
					return saga.Permanent(errDown)
				}
				return nil
			},
		},
		saga.Step[int]{Name: "hotel", Do: func(_ context.Context, n *int) error {
			if *n < 0 {
				return saga.Permanent(errDown)
			}
			return nil
		}},
	)
	require.NoError(t, err)
	s.saga, err = saga.NewRunner(memsaga.New(), saga.Config{Name: "trips"}, s.trips)
	require.NoError(t, err)
	background(t, s.saga.Run)
}

// provocation changes an object, a little differently each time, and says what its row must show then.
type provocation struct {
	row  string // its kind
	make func(t *testing.T, round int) (shows string)
}

func (s *scene) provocations() map[string]provocation {
	var permits []*bulkhead.Permit
	return map[string]provocation{
		"breakers": {"breaker", func(t *testing.T, round int) string {
			cfg := s.breaker.Config()
			cfg.Mode = []string{"force_open", "force_closed"}[round%2]
			require.NoError(t, s.breaker.Reconfigure(cfg))
			return []string{"\nopen\n", "\nclosed\n"}[round%2]
		}},
		"retries": {"retry", func(t *testing.T, round int) string {
			require.Error(t, s.retry.Do(t.Context(), func(context.Context) error { return errDown }))
			return fmt.Sprintf("gave up\n%d", round+1)
		}},
		"bulkheads": {"bulkhead", func(t *testing.T, round int) string {
			p, err := s.bulkhead.Acquire(t.Context())
			require.NoError(t, err)
			permits = append(permits, &p)
			t.Cleanup(permits[len(permits)-1].Abort)
			return fmt.Sprintf("in flight\n%d of 4", round+1)
		}},
		"limits": {"ratelimit", func(t *testing.T, round int) string {
			if round == 0 {
				for range 3 {
					require.NoError(t, s.limiter.Allow())
				}
			}
			require.Error(t, s.limiter.Allow())
			return fmt.Sprintf("rejected, all\n%d", round+1)
		}},
		"caches": {"cache", func(t *testing.T, round int) string {
			_, err := s.cache.Get(t.Context(), round)
			require.NoError(t, err)
			return fmt.Sprintf("entries\n%d", round+1)
		}},
		"subscriptions": {"pubsub.consumer", func(t *testing.T, round int) string {
			require.NoError(t, s.bus.Publish(t.Context(), pubsub.Message{Topic: "orders", Payload: []byte("bad")}))
			return fmt.Sprintf("dead letters\n%d", round+1)
		}},
		"outboxes": {"relay", func(_ *testing.T, round int) string {
			s.backlog.pending.Store(int64(round + 1))
			return fmt.Sprintf("pending\n%d", round+1)
		}},
		"sagas": {"saga", func(t *testing.T, round int) string {
			require.NoError(t, saga.Start(t.Context(), s.saga, s.trips, fmt.Sprint("trip-", round), -1))
			return fmt.Sprintf("compensated\n%d", round+1)
		}},
		"events": {"", func(_ *testing.T, round int) string {
			s.console.Record(console.Event{Kind: "boiler", Name: "cellar", Text: fmt.Sprint("lit, ", round)})
			return fmt.Sprint("lit, ", round)
		}},
		"others": {"boiler", func(_ *testing.T, round int) string {
			s.own.value.Store(int64(round + 70))
			return fmt.Sprintf("level\n%d", round+70)
		}},
	}
}

func names(m map[string]provocation) []string {
	var all []string
	for name := range m {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}
