package browser

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/saga"
)

// liven keeps everything busy until the test ends, so that a picture has something to show.
func (s *scene) liven(t *testing.T) {
	stock := breaker.New(breaker.Config{Name: "stock"})
	s.console.Add(stock, breaker.New(breaker.Config{Name: "shipping"}))
	quick := s.breaker.Config()
	quick.OpenDelay, quick.MaxOpenDelay, quick.Probes = 2*time.Second, -1, 1
	if err := s.breaker.Reconfigure(quick); err != nil {
		t.Fatal(err)
	}
	background(t, func(ctx context.Context) error {
		ticker := time.NewTicker(20 * time.Millisecond)
		defer ticker.Stop()
		for n := 0; ; n++ {
			select {
			case <-ticker.C:
				s.step(ctx, n, stock)
			case <-ctx.Done():
				return nil
			}
		}
	})
}

func (s *scene) step(ctx context.Context, n int, stock *breaker.Breaker) {
	ok := func(context.Context) error { return nil }
	down := func(context.Context) error { return errDown }
	bank := ok
	if n%200 > 120 {
		bank = down
	}
	_ = s.retry.Do(ctx, func(ctx context.Context) error { return s.breaker.Do(ctx, bank) })
	_ = stock.Do(ctx, ok)
	_ = s.limiter.Allow()
	_, _ = s.cache.Get(ctx, int(rand.ExpFloat64()*8))
	m := pubsub.Message{Topic: "orders", Key: fmt.Sprint(n % 7), Payload: []byte("good")}
	if n%100 == 99 {
		m.Payload = []byte("bad")
	}
	_ = s.bus.Publish(ctx, m)
	if n%10 == 0 {
		state := 1
		if n%150 == 0 {
			state = -1
		}
		_ = saga.Start(ctx, s.saga, s.trips, fmt.Sprint("busy-", n), state)
		p, err := s.bulkhead.Acquire(ctx)
		if err == nil && rand.IntN(2) == 0 {
			time.AfterFunc(700*time.Millisecond, func() { p.Done(nil) })
		} else if err == nil {
			p.Done(nil)
		}
	}
	s.backlog.pending.Store(int64(3 + n/25%9))
	s.own.value.Store(int64(60 + n/30%20))
}
