package cache_test

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/cache"
)

// TestLoadContextIsAContext uses the context of a load in every way that code below a loader does.
func TestLoadContextIsAContext(t *testing.T) {
	type key struct{}
	uses := map[string]func(ctx context.Context) error{
		"Done": func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		"Err": func(ctx context.Context) error {
			for ctx.Err() == nil {
				time.Sleep(time.Millisecond)
			}
			return ctx.Err()
		},
		"child": func(ctx context.Context) error {
			child, cancel := context.WithTimeout(ctx, time.Hour)
			defer cancel()
			<-child.Done()
			return context.Cause(child)
		},
		"AfterFunc": func(ctx context.Context) error {
			called := make(chan struct{})
			context.AfterFunc(ctx, func() { close(called) })
			<-called
			return context.Cause(ctx)
		},
	}
	for name, use := range uses {
		for _, caller := range []func(context.Context) context.Context{
			func(ctx context.Context) context.Context { return ctx }, context.WithoutCancel,
		} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var left context.Context
					c := open(t, func(ctx context.Context, _ string) (int, error) {
						left = ctx
						deadline, ok := ctx.Deadline()
						require.True(t, ok)
						require.Equal(t, time.Second, time.Until(deadline))
						require.NoError(t, ctx.Err())
						require.Equal(t, "value", ctx.Value(key{}))
						err := use(ctx)
						require.Equal(t, "value", ctx.Value(key{}))
						return 0, err
					}, cache.Config{LoadTimeout: time.Second})
					ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
					defer cancel()
					start := time.Now()
					_, err := c.Get(caller(ctx), "k")
					require.ErrorIs(t, err, cache.ErrLoadTimeout)
					require.LessOrEqual(t, time.Since(start), time.Second+time.Millisecond)
					require.Error(t, left.Err())
				})
			})
		}
	}
}

// TestLoadContextHasNoCauseOfItsCallers cancels the first caller while the load runs.
func TestLoadContextHasNoCauseOfItsCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := open(t, func(ctx context.Context, _ string) (error, error) {
			time.Sleep(time.Second)
			before := runtime.NumGoroutine()
			child, cancel := context.WithCancel(ctx)
			defer cancel()
			require.LessOrEqual(t, runtime.NumGoroutine(), before, "a goroutine watches the context")
			return errors.Join(context.Cause(ctx), context.Cause(child)), nil
		}, cache.Config{})
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() { _, _ = c.Get(ctx, "k") }()
		synctest.Wait()
		cancel(errSource)
		cause, err := c.Get(t.Context(), "k")
		require.NoError(t, err)
		require.NoError(t, cause)
	})
}

// TestLoadContextEndsWithTheLoad is for what a loader leaves behind.
func TestLoadContextEndsWithTheLoad(t *testing.T) {
	for _, timeout := range []time.Duration{time.Hour, -1} {
		synctest.Test(t, func(t *testing.T) {
			var ended atomic.Int64
			c := open(t, func(ctx context.Context, k string) (context.Context, error) {
				if k == "armed" {
					context.AfterFunc(ctx, func() { ended.Add(1) })
				}
				return ctx, nil
			}, cache.Config{LoadTimeout: timeout})
			for _, k := range []string{"armed", "unarmed"} {
				ctx, err := c.Get(t.Context(), k)
				require.NoError(t, err)
				require.Equal(t, context.Canceled, ctx.Err())
				<-ctx.Done()
			}
			synctest.Wait()
			require.EqualValues(t, 1, ended.Load())
		})
	}
}

// TestLoadOfAnUncancellableCaller runs on the caller's goroutine, and others can still wait for it and give up.
func TestLoadOfAnUncancellableCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type mine struct{}
		goroutine := make(chan struct{})
		c := open(t, func(ctx context.Context, _ string) (int, error) {
			close(goroutine) // once
			time.Sleep(time.Second)
			return 1, ctx.Err()
		}, cache.Config{})
		got := make(chan int)
		go func() {
			v, _ := c.Get(context.WithValue(context.Background(), mine{}, 1), "k")
			got <- v
		}()
		<-goroutine
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		start := time.Now()
		_, err := c.Get(ctx, "k")
		require.Equal(t, context.DeadlineExceeded, err)
		require.Equal(t, 20*time.Millisecond, time.Since(start))
		v, err := c.Get(t.Context(), "k")
		require.NoError(t, err)
		require.Equal(t, []int{1, 1}, []int{v, <-got})
	})
}
