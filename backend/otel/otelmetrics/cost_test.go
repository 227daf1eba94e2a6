package otelmetrics_test

import (
	"context"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/backstay-go/backstay/backend/otel/otelmetrics"
	"github.com/backstay-go/backstay/breaker"
)

func TestACallOfARegisteredObjectAllocatesNothing(t *testing.T) {
	provider, reader := provide(t)
	b := breaker.New(breaker.Config{Name: "bank"})
	reg, err := otelmetrics.Register(provider, otelmetrics.Config{}, b)
	require.NoError(t, err)
	_, err = collect(t, reader)
	require.NoError(t, err)
	op := func(context.Context) error { return nil }
	require.Zero(t, testing.AllocsPerRun(1000, func() { _ = b.Do(context.Background(), op) }))
	require.NoError(t, reg.Close())
}

// processorTime is what the process has used, which a busy machine does not lengthen as it does the time that passes.
func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// ratio is how many times as much work a call of with is as one of without: the median of rounds in which they take turns.
func ratio(without, with func()) float64 {
	const rounds, calls = 21, 20_000
	took := func(fn func()) float64 {
		start := processorTime()
		for range calls {
			fn()
		}
		return float64(processorTime() - start)
	}
	all := make([]float64, rounds)
	for i := range all {
		if i%2 == 0 {
			first := took(without)
			all[i] = took(with) / first
		} else {
			first := took(with)
			all[i] = first / took(without)
		}
	}
	slices.Sort(all)
	return all[rounds/2]
}

// A call of an object that is registered, and was collected just now, takes at most a tenth more than one that is not. What a loaded
// machine adds to one side goes away when it is measured again.
func TestRegisteringAnObjectDoesNotSlowItsCalls(t *testing.T) {
	provider, reader := provide(t)
	alone, registered := breaker.New(breaker.Config{Name: "alone"}), breaker.New(breaker.Config{Name: "registered"})
	reg, err := otelmetrics.Register(provider, otelmetrics.Config{}, registered)
	require.NoError(t, err)
	op := func(context.Context) error { return nil }
	best := 1e9
	for range 30 {
		_, err = collect(t, reader)
		require.NoError(t, err)
		best = min(best, ratio(func() { _ = alone.Do(context.Background(), op) }, func() { _ = registered.Do(context.Background(), op) }))
		if best <= 1.10 {
			break
		}
	}
	t.Logf("%.3f times as much", best)
	require.LessOrEqual(t, best, 1.10)
	require.NoError(t, reg.Close())
}

// BenchmarkBreaker measures a call of a breaker alone, of one that is registered, and of one that is being collected a hundred times a second.
func BenchmarkBreaker(b *testing.B) {
	op := func(context.Context) error { return nil }
	run := func(b *testing.B, br *breaker.Breaker) {
		b.ReportAllocs()
		for b.Loop() {
			_ = br.Do(context.Background(), op)
		}
	}
	b.Run("alone", func(b *testing.B) { run(b, breaker.New(breaker.Config{})) })
	for _, c := range []struct {
		name      string
		collected bool
	}{{"registered", false}, {"collected", true}} {
		b.Run(c.name, func(b *testing.B) {
			reader := sdk.NewManualReader()
			provider := sdk.NewMeterProvider(sdk.WithReader(reader))
			br := breaker.New(breaker.Config{})
			reg, err := otelmetrics.Register(provider, otelmetrics.Config{}, br)
			require.NoError(b, err)
			stop := func() {}
			if c.collected {
				stop = collecting(b, reader)
			}
			run(b, br)
			stop()
			require.NoError(b, reg.Close())
			require.NoError(b, provider.Shutdown(context.Background()))
		})
	}
}

// collecting collects a hundred times a second until the function it returns is called: far more often than any exporter.
func collecting(b *testing.B, reader sdk.Reader) (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		ticker := time.NewTicker(10 * time.Millisecond)
		defer ticker.Stop()
		var all metricdata.ResourceMetrics
		for {
			select {
			case <-ticker.C:
				if err := reader.Collect(context.Background(), &all); err != nil {
					b.Error(err)
				}
			case <-done:
				return
			}
		}
	})
	return func() { close(done); wg.Wait() }
}
