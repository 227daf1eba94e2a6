package cache_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/cache"
)

func TestLackIsRememberedForTheNegativeTTL(t *testing.T) {
	for _, a := range arrangements {
		t.Run(a.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var loads atomic.Int64
				var exists atomic.Bool
				cause := fmt.Errorf("no user k: %w", cache.ErrNotFound)
				cfg := cache.Config{Name: "users", TTLJitter: -1, NegativeTTL: time.Second}
				c := open(t, func(context.Context, string) (string, error) {
					loads.Add(1)
					if exists.Load() {
						return "v", nil
					}
					return "ignored", cause
				}, cfg, a.opts()...)
				v, err := c.Get(t.Context(), "k")
				require.ErrorIs(t, err, cache.ErrNotFound)
				require.ErrorIs(t, err, cause)
				require.Empty(t, v)
				require.EqualError(t, err, `cache "users": not found: no user k: not found`)
				exists.Store(true)
				time.Sleep(time.Second - time.Millisecond)
				for range 3 {
					v, err = c.Get(t.Context(), "k")
					require.EqualError(t, err, `cache "users": not found`)
					require.ErrorIs(t, err, cache.ErrNotFound)
					require.Empty(t, v)
				}
				require.EqualValues(t, 1, loads.Load())
				s := c.Stats()
				require.EqualValues(t, 3, s.NegativeHits)
				require.Zero(t, s.LoadFailures, "to have nothing is no failure")
				time.Sleep(11 * time.Millisecond)
				v, err = c.Get(t.Context(), "k")
				require.NoError(t, err)
				require.Equal(t, "v", v)
				require.EqualValues(t, 2, loads.Load())
			})
		})
	}
}

func TestSetReplacesTheKnowledgeOfALack(t *testing.T) {
	for _, a := range arrangements {
		t.Run(a.name, func(t *testing.T) {
			c := open(t, func(context.Context, string) (string, error) { return "", cache.ErrNotFound },
				cache.Config{NegativeTTL: time.Hour}, a.opts()...)
			_, err := c.Get(t.Context(), "k")
			require.ErrorIs(t, err, cache.ErrNotFound)
			require.NoError(t, c.Set(t.Context(), "k", "v"))
			v, err := c.Get(t.Context(), "k")
			require.NoError(t, err)
			require.Equal(t, "v", v)
		})
	}
}

func TestLackIsNotRememberedByDefault(t *testing.T) {
	for _, a := range arrangements {
		t.Run(a.name, func(t *testing.T) {
			var loads atomic.Int64
			c := open(t, func(context.Context, string) (string, error) { loads.Add(1); return "", cache.ErrNotFound },
				cache.Config{}, a.opts()...)
			for range 3 {
				_, err := c.Get(t.Context(), "k")
				require.ErrorIs(t, err, cache.ErrNotFound)
			}
			require.EqualValues(t, 3, loads.Load())
		})
	}
}

// TestLackReplacesAnEntry is the difference to a failure: an entry that could still be served must not be.
func TestLackReplacesAnEntry(t *testing.T) {
	for _, negative := range []time.Duration{-1, time.Hour} {
		for _, a := range arrangements {
			t.Run(fmt.Sprint(a.name, negative), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var gone atomic.Bool
					c := open(t, func(context.Context, string) (string, error) {
						if gone.Load() {
							return "", sql.ErrNoRows
						}
						return "v", nil
					}, cache.Config{
						TTL: time.Minute, TTLJitter: -1, RefreshAhead: 30 * time.Second, StaleIfError: time.Hour, NegativeTTL: negative,
					}, append(a.opts(), cache.WithNotFound(func(err error) bool { return errors.Is(err, sql.ErrNoRows) }))...)
					_, err := c.Get(t.Context(), "refreshed")
					require.NoError(t, err)
					_, err = c.Get(t.Context(), "expired")
					require.NoError(t, err)
					gone.Store(true)
					time.Sleep(40 * time.Second)
					for c.Stats().Refreshes == 0 { // the first may have to get the entry back from the store
						v, err := c.Get(t.Context(), "refreshed")
						require.NoError(t, err)
						require.Equal(t, "v", v)
					}
					synctest.Wait()
					_, err = c.Get(t.Context(), "refreshed")
					require.ErrorIs(t, err, cache.ErrNotFound, "the refresh found nothing")
					time.Sleep(30 * time.Second)
					_, err = c.Get(t.Context(), "expired")
					require.ErrorIs(t, err, cache.ErrNotFound)
					require.Zero(t, c.Stats().StaleServed)
				})
			})
		}
	}
}
