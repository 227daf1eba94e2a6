package retry_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/retry"
)

// storm is a service and its callers. The service answers one request after the other, 100 a second, and cannot see that a
// caller has gone: so it may spend its time on answers that nobody waits for, and a storm of retries can keep it there.
type storm struct {
	queue    chan chan struct{}
	retrier  *retry.Retrier
	mu       sync.Mutex
	answered map[int]int // by the second in which the call began
	called   map[int]int
}

const (
	perRequest = 10 * time.Millisecond
	patience   = time.Second // of a caller, for one attempt
	queued     = 300
)

var errShed = errors.New("503: queue is full")

func (s *storm) serve(ctx context.Context, outageFrom, outageTo time.Duration) {
	start := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case answer := <-s.queue:
			if now := time.Since(start); now >= outageFrom && now < outageTo {
				<-time.After(outageTo - now)
			}
			<-time.After(perRequest)
			close(answer)
		}
	}
}

func (s *storm) request(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	answer := make(chan struct{})
	select {
	case s.queue <- answer:
	default:
		return errShed
	}
	select {
	case <-answer:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *storm) call(ctx context.Context, second int) {
	err := s.retrier.Do(ctx, s.request)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.called[second]++
	if err == nil {
		s.answered[second]++
	}
}

// run sends calls at 90 % of the capacity for 60 s, with an outage from the 5th to the 10th second, and returns the share that was
// answered of the calls begun in the seconds [from, to).
func (s *storm) run(seed uint64) func(from, to int) float64 {
	s.queue, s.answered, s.called = make(chan chan struct{}, queued), map[int]int{}, map[int]int{}
	ctx, cancel := context.WithCancel(context.Background())
	var service, callers sync.WaitGroup
	service.Go(func() { s.serve(ctx, 5*time.Second, 10*time.Second) })
	random := rand.New(rand.NewPCG(seed, 0))
	start := time.Now()
	for time.Since(start) < time.Minute {
		<-time.After(time.Duration(random.ExpFloat64() * float64(perRequest) / 0.9))
		callers.Go(func() { s.call(ctx, int(time.Since(start)/time.Second)) })
	}
	callers.Wait()
	cancel()
	service.Wait()
	return func(from, to int) float64 {
		answered, called := 0, 0
		for second := from; second < to; second++ {
			answered += s.answered[second]
			called += s.called[second]
		}
		return float64(answered) / float64(called)
	}
}

// A service that is at 90 % of its capacity has an outage of five seconds. With the budget it is well again soon after;
// without, the retries keep it down for good, though the outage is long over.
func TestARetryStormEndsWithABudgetAndNotWithoutOne(t *testing.T) {
	cfg := retry.Config{MaxAttempts: 4, InitialInterval: 100 * time.Millisecond, Jitter: -1}
	for seed := range uint64(3) {
		synctest.Test(t, func(t *testing.T) {
			s := storm{retrier: retry.New(cfg)}
			share := s.run(seed)
			t.Logf("seed %d, no budget: %.2f before, %.2f in the outage, %.2f in the last 20 s, %+v",
				seed, share(0, 4), share(5, 10), share(40, 60), s.retrier.Stats())
			require.Greater(t, share(0, 4), 0.99)
			require.Less(t, share(40, 60), 0.2, "without a budget it stays down")
		})
		synctest.Test(t, func(t *testing.T) {
			budget := retry.NewBudget(retry.BudgetConfig{})
			s := storm{retrier: retry.New(cfg, retry.WithBudget(budget))}
			share := s.run(seed)
			t.Logf("seed %d, budget: %.2f before, %.2f in the outage, %.2f in the last 20 s, %+v",
				seed, share(0, 4), share(5, 10), share(40, 60), s.retrier.Stats())
			require.Greater(t, share(0, 4), 0.99)
			require.Greater(t, share(40, 60), 0.99, "with a budget it recovers")
		})
	}
}
