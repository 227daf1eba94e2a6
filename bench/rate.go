package bench

import (
	"context"
	"time"

	"github.com/failsafe-go/failsafe-go/ratelimiter"
	"golang.org/x/time/rate"

	"github.com/backstay-go/backstay/ratelimit"
)

const (
	allowedCase = "rate limit, allowed"
	limitedCase = "rate limit, rejection"
)

func rates(l *list) {
	l.both(allowedCase, work,
		subject{ours, func() call { return allowing(ratelimit.New(ratelimit.Config{Rate: 1e9, Burst: 1e9})) }},
		subject{rateName, func() call { return unless(rate.NewLimiter(1e12, 1e9).Allow) }},
		subject{failsafeBare + ", smooth", func() call {
			return unless(ratelimiter.NewSmoothWithMaxRate[int](time.Nanosecond).TryAcquirePermit)
		}},
		subject{failsafeBare + ", bursty", func() call {
			return unless(ratelimiter.NewBursty[int](1e9, time.Millisecond).TryAcquirePermit)
		}},
	)
	l.both(limitedCase, work,
		subject{ours, func() call {
			l := ratelimit.New(ratelimit.Config{Rate: 1e-3, Burst: 1})
			_ = l.Allow()
			return allowing(l)
		}},
		subject{rateName, func() call { return unless(exhausted(rate.NewLimiter(1e-9, 1).Allow)) }},
		subject{failsafeBare + ", smooth", func() call {
			return unless(exhausted(ratelimiter.NewSmoothWithMaxRate[int](time.Hour).TryAcquirePermit))
		}},
	)
}

func allowing(l *ratelimit.Limiter) call {
	return func(ctx context.Context, n int) (int, error) {
		if err := l.Allow(); err != nil {
			return 0, err
		}
		return work(ctx, n)
	}
}

// exhausted takes what a limiter has.
func exhausted(allow func() bool) func() bool {
	for allow() {
		continue
	}
	return allow
}
