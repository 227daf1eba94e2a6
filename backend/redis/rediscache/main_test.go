package rediscache_test

import (
	"context"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/backstay-go/backstay/backend/redis/internal/redistest"
	"github.com/backstay-go/backstay/backend/redis/rediscache"
	"github.com/backstay-go/backstay/cache"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// dial returns a client with the options that the package recommends.
func dial(t testing.TB, url string) rueidis.Client {
	t.Helper()
	opt, err := rediscache.ClientOption(url)
	require.NoError(t, err)
	client, err := rueidis.NewClient(opt)
	require.NoError(t, err)
	t.Cleanup(client.Close)
	return client
}

// private is a client of a server that the test may hurt.
func private(t *testing.T) (*redistest.Server, rueidis.Client) {
	t.Helper()
	srv := redistest.Start(t)
	return srv, dial(t, "redis://"+srv.Addr)
}

// open returns a store of strings; its entries are removed after the test if the server is the shared one.
func open(t testing.TB, client rueidis.Client, cfg rediscache.Config) *rediscache.Store[string, string] {
	t.Helper()
	if cfg.Prefix == "" {
		cfg.Prefix = redistest.Prefix(t)
	}
	s, err := rediscache.New[string, string](client, cfg)
	require.NoError(t, err)
	return s
}

// shared is a client of the server of the machine, and a prefix whose keys are removed after the test.
func shared(t testing.TB) (rueidis.Client, string) {
	t.Helper()
	client := dial(t, redistest.SharedURL(t))
	prefix := redistest.Prefix(t)
	t.Cleanup(func() { removeAll(t, client, prefix) })
	return client, prefix
}

func removeAll(t testing.TB, client rueidis.Client, prefix string) {
	t.Helper()
	ctx := context.Background()
	for cursor := uint64(0); ; {
		page, err := client.Do(ctx, client.B().Scan().Cursor(cursor).Match(prefix+":*").Count(1000).Build()).AsScanEntry()
		require.NoError(t, err)
		for _, key := range page.Elements {
			require.NoError(t, client.Do(ctx, client.B().Del().Key(key).Build()).Error())
		}
		if cursor = page.Cursor; cursor == 0 {
			return
		}
	}
}

func entry(value string) cache.Entry[string] {
	return cache.Entry[string]{Value: value, TTL: time.Hour}
}

// within bounds the calls of a test.
func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func set(t testing.TB, s *rediscache.Store[string, string], key, value string) {
	t.Helper()
	require.NoError(t, s.Set(within(t, time.Minute), key, entry(value)))
}

func requireValue(t testing.TB, s *rediscache.Store[string, string], key, want string) cache.Entry[string] {
	t.Helper()
	e, ok, err := s.Get(within(t, time.Minute), key)
	require.NoError(t, err)
	require.True(t, ok, "nothing under %q", key)
	require.Equal(t, want, e.Value)
	return e
}

func requireNone(t testing.TB, s *rediscache.Store[string, string], key string) {
	t.Helper()
	e, ok, err := s.Get(within(t, time.Minute), key)
	require.NoError(t, err)
	require.False(t, ok, "got %+v", e)
}

// lease takes the lease of key.
func lease(t testing.TB, s *rediscache.Store[string, string], key string, seen uint64) cache.Lease[string] {
	t.Helper()
	grant, err := s.Lease(within(t, time.Minute), key, seen)
	require.NoError(t, err)
	require.NotNil(t, grant.Lease, "%+v", grant)
	return grant.Lease
}
