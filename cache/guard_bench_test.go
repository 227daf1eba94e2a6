package cache

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// instantStore has every answer at hand, as a client-side cache does.
type instantStore struct{ Store[string, int] }

func (instantStore) Get(context.Context, string) (Entry[int], bool, error) {
	return Entry[int]{Value: 1, Version: 1}, true, nil
}

// waitingStore looks at its context as a driver does that sends a request.
type waitingStore struct{ Store[string, int] }

func (waitingStore) Get(ctx context.Context, _ string) (Entry[int], bool, error) {
	select {
	case <-ctx.Done():
		return Entry[int]{}, false, ctx.Err()
	default:
		return Entry[int]{Value: 1, Version: 1}, true, nil
	}
}

func TestGuardAddsOneAllocationToAGet(t *testing.T) {
	g := newGuard[string, int](instantStore{}, time.Second, "users")
	defer g.close()
	require.LessOrEqual(t, testing.AllocsPerRun(1000, func() { _, _, _ = g.Get(t.Context(), "a") }), 1.0)
	short, cancel := context.WithTimeout(t.Context(), time.Second/2)
	defer cancel()
	waiting := newGuard[string, int](waitingStore{}, time.Second, "users")
	defer waiting.close()
	require.LessOrEqual(t, testing.AllocsPerRun(1000, func() { _, _, _ = waiting.Get(short, "a") }), 1.0,
		"a caller with less time than the timeout needs no timer")
}

func BenchmarkGuardGet(b *testing.B) {
	get := func(s Store[string, int], call func(Store[string, int], context.Context)) func(*testing.B) {
		return func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				call(s, b.Context())
			}
		}
	}
	bare := func(s Store[string, int], ctx context.Context) { _, _, _ = s.Get(ctx, "a") }
	limited := func(s Store[string, int], ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		_, _, _ = s.Get(ctx, "a")
		cancel()
	}
	for name, s := range map[string]Store[string, int]{"at hand": instantStore{}, "waiting": waitingStore{}} {
		g := newGuard(s, time.Second, "users")
		b.Run(name+"/store", get(s, bare))
		b.Run(name+"/store with timeout", get(s, limited))
		b.Run(name+"/guard", get(g, bare))
		g.close()
	}
}
