package rediscache_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/redis/internal/redistest"
	"github.com/backstay-go/backstay/backend/redis/rediscache"
	"github.com/backstay-go/backstay/cache"
)

var payload = make([]byte, 32)

// benchStore has one entry of 32 bytes under "user-1".
func benchStore(b *testing.B) (*rediscache.Store[string, []byte], rueidis.Client, string) {
	client, prefix := shared(b)
	s, err := rediscache.New[string, []byte](client, rediscache.Config{Prefix: prefix})
	require.NoError(b, err)
	require.NoError(b, s.Set(context.Background(), "user-1", cache.Entry[[]byte]{Value: payload, TTL: time.Hour}))
	return s, client, prefix + ":v:{="
}

// BenchmarkClientSideHit compares a hit in a cache whose memory the notices keep true with one in the client's own
// client-side cache.
func BenchmarkClientSideHit(b *testing.B) {
	s, client, prefix := benchStore(b)
	ctx := context.Background()
	key := "user-1"
	b.Run("rueidis", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			cmd := client.B().Get().Key(prefix + key + "}").Cache()
			if v, err := client.DoCache(ctx, cmd, time.Hour).AsBytes(); err != nil || len(v) < len(payload) {
				b.Fatal(v, err)
			}
		}
	})
	c := cache.New(func(context.Context, string) ([]byte, error) { return nil, errors.New("not in Redis") },
		cache.Config{Name: "bench", TTL: time.Hour, LocalTTL: time.Hour}, cache.WithL2[string, []byte](s))
	defer func() { _ = c.Close() }()
	redistest.Eventually(b, "notices come", func() bool { return s.Stats().NoticesLost > 0 })
	b.Run("cache over rediscache", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if v, err := c.Get(ctx, key); err != nil || len(v) != len(payload) {
				b.Fatal(v, err)
			}
		}
	})
}

// BenchmarkGet compares a Get over the network with GET alone, and with GET after PTTL.
func BenchmarkGet(b *testing.B) {
	s, client, prefix := benchStore(b)
	ctx := context.Background()
	key := "user-1"
	b.Run("rueidis-GET", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			cmd := client.B().Get().Key(prefix + key + "}").Build()
			if v, err := client.Do(ctx, cmd).AsBytes(); err != nil || len(v) < len(payload) {
				b.Fatal(v, err)
			}
		}
	})
	b.Run("rueidis-PTTL-GET", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			name := prefix + key + "}"
			answers := client.DoMulti(ctx, client.B().Pttl().Key(name).Build(), client.B().Get().Key(name).Build())
			if v, err := answers[1].AsBytes(); err != nil || len(v) < len(payload) {
				b.Fatal(v, err)
			}
		}
	})
	b.Run("rediscache", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if e, ok, err := s.Get(ctx, key); err != nil || !ok || len(e.Value) != len(payload) {
				b.Fatal(e, ok, err)
			}
		}
	})
}
