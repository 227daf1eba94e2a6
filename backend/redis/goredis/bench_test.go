package goredis_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/redis/goredis"
	"github.com/backstay-go/backstay/backend/redis/internal/redistest"
	"github.com/backstay-go/backstay/backend/redis/rediscache"
	"github.com/backstay-go/backstay/cache"
)

// BenchmarkGet compares a Get with GET alone, and with GET after PTTL.
func BenchmarkGet(b *testing.B) {
	client := dial(b, redistest.SharedURL(b))
	prefix := redistest.Prefix(b)
	b.Cleanup(func() { removeAll(b, client, prefix) })
	s, err := goredis.New[string, []byte](client, rediscache.Config{Prefix: prefix})
	require.NoError(b, err)
	ctx := context.Background()
	key, payload := "user-1", make([]byte, 32)
	require.NoError(b, s.Set(ctx, key, cache.Entry[[]byte]{Value: payload, TTL: time.Hour}))
	b.Run("go-redis-GET", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if v, err := client.Get(ctx, prefix+":v:{="+key+"}").Bytes(); err != nil || len(v) < len(payload) {
				b.Fatal(v, err)
			}
		}
	})
	b.Run("go-redis-PTTL-GET", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			pipe := client.Pipeline()
			name := prefix + ":v:{=" + key + "}"
			pipe.PTTL(ctx, name)
			answer := pipe.Get(ctx, name)
			if _, err := pipe.Exec(ctx); err != nil || len(answer.Val()) < len(payload) {
				b.Fatal(answer, err)
			}
		}
	})
	b.Run("goredis", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if e, ok, err := s.Get(ctx, key); err != nil || !ok || len(e.Value) != len(payload) {
				b.Fatal(e, ok, err)
			}
		}
	})
}
