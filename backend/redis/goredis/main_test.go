package goredis_test

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/backstay-go/backstay/backend/redis/goredis"
	"github.com/backstay-go/backstay/backend/redis/internal/redistest"
	"github.com/backstay-go/backstay/backend/redis/rediscache"
	"github.com/backstay-go/backstay/cache"
	"github.com/backstay-go/backstay/cache/cachetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type store = cache.Store[string, string]

func dial(t testing.TB, url string) *redis.Client {
	t.Helper()
	opt, err := redis.ParseURL(url)
	require.NoError(t, err)
	opt.ContextTimeoutEnabled = true
	client := redis.NewClient(opt)
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	return client
}

func open(t testing.TB, client redis.UniversalClient, prefix string) *rediscache.Store[string, string] {
	t.Helper()
	s, err := goredis.New[string, string](client, rediscache.Config{Prefix: prefix})
	require.NoError(t, err)
	return s
}

func removeAll(t testing.TB, client *redis.Client, prefix string) {
	t.Helper()
	ctx := context.Background()
	for keys := client.Scan(ctx, 0, prefix+":*", 1000).Iterator(); ; {
		if !keys.Next(ctx) {
			require.NoError(t, keys.Err())
			return
		}
		require.NoError(t, client.Del(ctx, keys.Val()).Err())
	}
}

// within bounds the calls of a test.
func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func entry(value string) cache.Entry[string] {
	return cache.Entry[string]{Value: value, TTL: time.Hour}
}

func wait(d time.Duration) { <-time.After(d) }

func TestConformance(t *testing.T) {
	url := redistest.SharedURL(t)
	prefixes := map[store]string{}
	cachetest.Run(t, cachetest.Harness{
		New: func(t *testing.T) store {
			client := dial(t, url)
			prefix := redistest.Prefix(t)
			t.Cleanup(func() { removeAll(t, client, prefix) })
			s := open(t, client, prefix)
			prefixes[s] = prefix
			return s
		},
		Second: func(t *testing.T, first store) store { return open(t, dial(t, url), prefixes[first]) },
		TTL:    500 * time.Millisecond,
		Wait:   wait,
	})
}

func TestConformanceOnACluster(t *testing.T) {
	nodes := redistest.StartCluster(t)
	newStore := func(t *testing.T, prefix string) store {
		client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{nodes[0].Addr}, ContextTimeoutEnabled: true})
		t.Cleanup(func() { require.NoError(t, client.Close()) })
		return open(t, client, prefix)
	}
	prefixes := map[store]string{}
	cachetest.Run(t, cachetest.Harness{
		New: func(t *testing.T) store {
			prefix := redistest.Prefix(t)
			s := newStore(t, prefix)
			prefixes[s] = prefix
			return s
		},
		Second: func(t *testing.T, first store) store { return newStore(t, prefixes[first]) },
		TTL:    500 * time.Millisecond,
		Wait:   wait,
	})
	for _, node := range nodes {
		require.NotEqual(t, ":0", node.Do(t, "DBSIZE"), "a node holds no key, so that the suite has not met several nodes")
	}
}
