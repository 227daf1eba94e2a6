package cache_test

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/backstay-go/backstay/cache"
)

func TestWriteBehindBehavesAsItsModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(struct{ rapid.TB }{t}, func(t *rapid.T) {
			l := newLedger()
			var broken atomic.Bool
			l.refuse = func(context.Context, []write) error {
				if broken.Load() {
					return errSource
				}
				return nil
			}
			b := cache.NewWriteBehind(l.load, l.write, cache.Config{MaxEntries: 2}, cache.WriteBehindConfig{
				MaxBatch: 2, MaxDelay: 20 * time.Millisecond, MaxPending: 3, RejectWhenFull: true,
			})
			want := map[string]int{}
			key := rapid.SampledFrom([]string{"a", "b", "c", "d", "e"})
			accept := func(err error, k string, change func()) {
				if err == nil {
					change()
				} else if !errors.Is(err, cache.ErrFull) {
					t.Fatalf("%s: %v", k, err)
				}
			}
			t.Repeat(map[string]func(*rapid.T){
				"set": func(t *rapid.T) {
					k, v := key.Draw(t, "key"), rapid.IntRange(1, 99).Draw(t, "value")
					accept(b.Set(t.Context(), k, v), k, func() { want[k] = v })
				},
				"delete": func(t *rapid.T) {
					k := key.Draw(t, "key")
					accept(b.Delete(t.Context(), k), k, func() { delete(want, k) })
				},
				"break": func(t *rapid.T) { broken.Store(rapid.Bool().Draw(t, "broken")) },
				"wait":  func(t *rapid.T) { time.Sleep(time.Duration(rapid.IntRange(1, 200).Draw(t, "ms")) * time.Millisecond) },
				"flush": func(t *rapid.T) {
					ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
					defer cancel()
					synctest.Wait() // no call of the writer is under way
					pending := b.Stats().Pending > 0
					if err := b.Flush(ctx); (err != nil) != (broken.Load() && pending) {
						t.Fatalf("Flush: %v; broken %v, pending %v", err, broken.Load(), pending)
					}
				},
				"": func(t *rapid.T) {
					k := key.Draw(t, "key")
					v, err := b.Get(t.Context(), k)
					if value, ok := want[k]; ok != (err == nil) || v != value {
						t.Fatalf("Get(%s) = %d, %v; accepted was %d", k, v, err, value)
					}
					if s := b.Stats(); s.Pending > 3 {
						t.Fatalf("%d pending", s.Pending)
					}
				},
			})
			broken.Store(false)
			require.NoError(t, b.Close(t.Context()))
			require.Equal(t, want, l.has(t))
		})
	})
}

func TestWriteBehindConfig(t *testing.T) {
	b := newLedger().behind(t, cache.WriteBehindConfig{})
	want := cache.WriteBehindConfig{
		MaxBatch: 100, MaxDelay: 100 * time.Millisecond, MaxPending: 10_000,
		WriteTimeout: 10 * time.Second, RetryMin: 50 * time.Millisecond, RetryMax: 10 * time.Second,
	}
	kind, name, config := b.Describe()
	require.Equal(t, []any{"cache", "users"}, []any{kind, name})
	text, err := json.Marshal(config)
	require.NoError(t, err)
	var read struct {
		Cache       cache.Config            `json:"cache"`
		WriteBehind cache.WriteBehindConfig `json:"write_behind"`
	}
	require.NoError(t, json.Unmarshal(text, &read))
	require.Equal(t, want, read.WriteBehind)
	require.Equal(t, b.Config(), read.Cache)

	var cfg cache.WriteBehindConfig
	require.NoError(t, json.Unmarshal([]byte(`{"max_delay":"off","write_timeout":"off","reject_when_full":true}`), &cfg))
	require.Equal(t, cache.WriteBehindConfig{MaxDelay: -1, WriteTimeout: -1, RejectWhenFull: true}, cfg)
	require.ErrorContains(t, json.Unmarshal([]byte(`{"max_dealy":"1s"}`), &cfg), "max_dealy")

	require.NoError(t, cache.WriteBehindConfig{RetryMin: time.Hour}.Validate())
	bad := cache.WriteBehindConfig{MaxBatch: -1, MaxPending: -2, RetryMin: -3}
	for _, field := range []string{"MaxBatch is -1", "MaxPending is -2", "RetryMin is -3"} {
		require.ErrorContains(t, bad.Validate(), field)
	}
	require.ErrorContains(t, cache.WriteBehindConfig{RetryMin: 2, RetryMax: 1}.Validate(), "RetryMax is 1ns")
	require.ErrorContains(t, cache.WriteBehindConfig{RetryMax: -1}.Validate(), "RetryMax")
	l := newLedger()
	require.Panics(t, func() { cache.NewWriteBehind(l.load, l.write, cache.Config{}, bad) })
	require.Panics(t, func() { cache.NewWriteBehind(l.load, nil, cache.Config{}, cfg) })
	require.Panics(t, func() { cache.NewWriteBehind(nil, l.write, cache.Config{}, cfg) })
	require.Panics(t, func() { _, _ = cache.OpenWriteBehind(t.Context(), nil, l.load, l.write, cache.Config{}, cfg) })
}

func TestWriteBehindMetricsAreTheStats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		b := l.behind(t, cache.WriteBehindConfig{MaxPending: 2, RejectWhenFull: true})
		l.refuseWith(func(_ context.Context, writes []write) error {
			if holds(writes, "b") {
				return refusal{}
			}
			return nil
		})
		for _, w := range []write{{Key: "a", Value: 1}, {Key: "a", Value: 2}, {Key: "b", Value: -1}, {Key: "c"}} {
			_ = b.Set(t.Context(), w.Key, w.Value)
		}
		require.ErrorIs(t, b.Flush(t.Context()), cache.ErrUnwritten)
		time.Sleep(time.Second)
		m := maps.Collect(b.Metrics())
		require.Equal(t, []float64{1, 1, 1, 1, 1, 1, 0}, []float64{
			m["written_total"], m["coalesced_total"], m["rejected_total"], m["pending"], m["refused"], m["oldest_pending_seconds"],
			m["journal_failures_total"],
		})
		require.NotZero(t, m["retries_total"])
		require.Contains(t, m, "hits_total")
		for name := range b.Metrics() {
			if name == "hits_total" {
				break // stops without a panic
			}
		}
		require.NoError(t, b.Discard(t.Context(), "b"))
	})
}
