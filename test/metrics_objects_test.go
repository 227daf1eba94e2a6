package test

import (
	"context"
	"iter"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/kafka/kafkapubsub"
	"github.com/backstay-go/backstay/backend/nats/natsembed"
	"github.com/backstay-go/backstay/backend/nats/natspubsub"
	"github.com/backstay-go/backstay/backend/rabbitmq/rabbitpubsub"
	"github.com/backstay-go/backstay/backend/redis/rediscache"
	"github.com/backstay-go/backstay/backend/redis/redispubsub"
	"github.com/backstay-go/backstay/backend/sqlite"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/cache"
	"github.com/backstay-go/backstay/fallback"
	"github.com/backstay-go/backstay/hedge"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/sqloutbox"
	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/pubsub/mempubsub"
	"github.com/backstay-go/backstay/pubsub/requestreply"
	"github.com/backstay-go/backstay/ratelimit"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/memsaga"
	"github.com/backstay-go/backstay/timeout"
)

type observable interface {
	Describe() (kind, name string, config any)
	Metrics() iter.Seq2[string, float64]
}

// elsewhere is proved where its dependencies are: backend/otel has TestARegistrationIsAnObject.
const elsewhere = "otelmetrics.Registration"

// TestTheMetricTableIsWhatObjectsYield makes one of each object, and compares its kind and the names of its metrics with those that the
// source was read to have, which are the ones in docs/operating.md.
func TestTheMetricTableIsWhatObjectsYield(t *testing.T) {
	listed := observedTypes(t)
	delete(listed, elsewhere)
	made := map[string]bool{}
	check := func(t *testing.T, objects ...observable) {
		t.Helper()
		for _, o := range objects {
			name := objectName(o)
			made[name] = true
			require.Contains(t, listed, name)
			kind, _, _ := o.Describe()
			require.Equal(t, listed[name].kind, kind, name)
			require.Equal(t, sorted(namesListed(listed, name)), sorted(namesYielded(o)), name)
		}
	}
	check(t, policies()...)
	check(t, caches(t)...)
	check(t, messaging(t)...)
	check(t, transactional(t)...)
	check(t, embedded(t)...)
	t.Run("Redis", func(t *testing.T) { check(t, onRedis(t)...) })
	t.Run("RabbitMQ", func(t *testing.T) {
		made["rabbitpubsub.Driver"] = true // also where the server is missing, of which the next line tells
		needsRabbitMQ(t)
		driver, err := rabbitpubsub.Open(eventually(t), rabbitURL(), rabbitpubsub.Config{})
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, driver.Close()) })
		check(t, driver)
	})
	require.Equal(t, sortedKeys(listed), sortedKeys(made), "an object that this test does not make")
}

func policies() []observable {
	return []observable{
		breaker.New(breaker.Config{}), breaker.NewSet[string](breaker.SetConfig{}),
		bulkhead.New(bulkhead.Config{MaxConcurrent: 1}), bulkhead.NewSet[string](bulkhead.SetConfig{}),
		ratelimit.New(ratelimit.Config{}), ratelimit.NewSet[string](ratelimit.SetConfig{}),
		retry.New(retry.Config{}), retry.NewBudget(retry.BudgetConfig{}),
		timeout.New(timeout.Config{}), hedge.New(hedge.Config{}), fallback.New(fallback.Config{}),
	}
}

func caches(t *testing.T) []observable {
	t.Helper()
	load := func(context.Context, string) (int, error) { return 0, nil }
	read := cache.New(load, cache.Config{})
	t.Cleanup(func() { require.NoError(t, read.Close()) })
	write := func(context.Context, []cache.Write[string, int]) error { return nil }
	behind := cache.NewWriteBehind(load, write, cache.Config{}, cache.WriteBehindConfig{})
	t.Cleanup(func() { require.NoError(t, behind.Close(context.WithoutCancel(t.Context()))) })
	return []observable{read, behind}
}

func messaging(t *testing.T) []observable {
	t.Helper()
	driver := mempubsub.New(mempubsub.Config{})
	bus := pubsub.New(driver)
	t.Cleanup(func() { require.NoError(t, bus.Close()) })
	consumer, err := bus.Open(t.Context(), pubsub.Subscription{Topic: "orders", Group: "billing"})
	require.NoError(t, err)
	client, err := requestreply.NewClient[string, int](t.Context(), bus, requestreply.ClientConfig{Topic: "prices"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	server := requestreply.NewServer(bus, requestreply.ServerConfig{}, func(context.Context, string) (int, error) { return 0, nil })
	return []observable{driver, bus, consumer, client, server}
}

func transactional(t *testing.T) []observable {
	t.Helper()
	db, err := sqlite.Open(filepath.Join(t.TempDir(), "orders.db"), sqlite.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	store, err := sqloutbox.New(db, sqloutbox.SQLite(), sqloutbox.Config{})
	require.NoError(t, err)
	bus := pubsub.New(mempubsub.New(mempubsub.Config{}))
	t.Cleanup(func() { require.NoError(t, bus.Close()) })
	nothing, err := saga.Define("nothing", 1, saga.Step[int]{Name: "step", Do: func(context.Context, *int) error { return nil }})
	require.NoError(t, err)
	runner, err := saga.NewRunner(memsaga.New(), saga.Config{}, nothing)
	require.NoError(t, err)
	return []observable{
		outbox.New(store, outbox.Config{}), outbox.NewRelay(store, bus, outbox.RelayConfig{}), outbox.NewInbox(store, outbox.InboxConfig{}), runner,
	}
}

// embedded are the objects on servers in this process.
func embedded(t *testing.T) []observable {
	t.Helper()
	server, err := natsembed.Start(natsembed.Config{Dir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Close()) })
	conn, err := server.Connect()
	require.NoError(t, err)
	t.Cleanup(conn.Close)
	nats, err := natspubsub.New(t.Context(), conn, natspubsub.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, nats.Close()) })
	kafka, err := kafkapubsub.Open(eventually(t), ownKafka(t), kafkapubsub.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, kafka.Close()) })
	return []observable{server, nats, kafka}
}

func onRedis(t *testing.T) []observable {
	t.Helper()
	url := ownRedis(t, "--appendonly", "no")
	driver, err := redispubsub.Open(eventually(t), url, redispubsub.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, driver.Close()) })
	option, err := rueidis.ParseURL(url)
	require.NoError(t, err)
	client, err := rueidis.NewClient(option)
	require.NoError(t, err)
	t.Cleanup(client.Close)
	store, err := rediscache.New[string, int](client, rediscache.Config{Prefix: "prices:1"})
	require.NoError(t, err)
	return []observable{driver, store}
}

var parameters = regexp.MustCompile(`\[.*\]`)

// objectName is the package and the name of an object's type, as the table has it.
func objectName(o observable) string {
	name := parameters.ReplaceAllString(strings.TrimPrefix(reflect.TypeOf(o).String(), "*"), "")
	if alias := aliases[strings.Replace(name, "Cache", "engine", 1)]; alias != "" {
		return alias
	}
	return name
}

func namesListed(listed map[string]*observed, object string) (names []string) {
	for _, m := range listed[object].metrics {
		names = append(names, strings.Split(strings.ReplaceAll(m.name, "`", ""), ", ")...)
	}
	if from := inherited[object]; from != "" {
		names = append(names, namesListed(listed, from)...)
	}
	return names
}

// namesYielded leaves out those with labels, one for each step of a saga, of which the page tells in words.
func namesYielded(o observable) (names []string) {
	for name := range o.Metrics() {
		if !strings.Contains(name, "{") {
			names = append(names, name)
		}
	}
	return names
}

func sorted(names []string) []string { slices.Sort(names); return names }
