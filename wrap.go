package backstay

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/ratelimit"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/timeout"
)

// Wrap returns fn run through policies, the first outermost. Compose once and keep the result: it is safe for concurrent use
// when fn is. Without policies it is fn itself. It panics if fn or a policy is nil.
func Wrap[In, Out any](fn Func[In, Out], policies ...Policy) Func[In, Out] {
	if fn == nil {
		panic("backstay: Wrap: the function is nil")
	}
	for i, policy := range slices.Backward(policies) {
		fn = wrapOne(fn, policy, i)
	}
	return fn
}

func wrapOne[In, Out any](fn Func[In, Out], policy Policy, index int) Func[In, Out] {
	switch p := policy.(type) {
	case nil:
		panic(fmt.Sprintf("backstay: Wrap: policy %d is nil", index))
	case *retry.Retrier:
		return retry.Wrap(p, fn)
	case *breaker.Breaker:
		return breaker.Wrap(p, fn)
	case *bulkhead.Bulkhead:
		return bulkhead.Wrap(p, fn)
	case *timeout.Timeout:
		return timeout.Wrap(p, fn)
	case *ratelimit.Limiter:
		return ratelimit.Wrap(p, fn)
	case *chain:
		return Wrap(fn, p.policies...)
	default:
		return wrapForeign(fn, p)
	}
}

// wrapForeign runs fn through the method of a policy that is not of this module. The result is handed over in a value of its
// own, published atomically: a policy that abandons its operation can then delay nothing and mix up nothing.
func wrapForeign[In, Out any](fn Func[In, Out], policy Policy) Func[In, Out] {
	return func(ctx context.Context, in In) (Out, error) {
		var result atomic.Pointer[Out]
		err := policy.Do(ctx, func(ctx context.Context) error {
			out, err := fn(ctx, in)
			result.Store(&out)
			return err
		})
		if out := result.Load(); out != nil {
			return *out, err
		}
		var none Out
		return none, err
	}
}

// WrapErr is [Wrap] for functions without a value, such as message handlers and commands.
func WrapErr[In any](fn func(ctx context.Context, in In) error, policies ...Policy) func(ctx context.Context, in In) error {
	if fn == nil {
		panic("backstay: WrapErr: the function is nil")
	}
	wrapped := Wrap(func(ctx context.Context, in In) (struct{}, error) { return struct{}{}, fn(ctx, in) }, policies...)
	return func(ctx context.Context, in In) error {
		_, err := wrapped(ctx, in)
		return err
	}
}

// Call runs op once through policies, the first outermost. It composes on every call, which costs an allocation for each
// policy: where the same thing is called again and again, use [Wrap].
func Call[T any](ctx context.Context, op func(context.Context) (T, error), policies ...Policy) (T, error) {
	if op == nil {
		panic("backstay: Call: the operation is nil")
	}
	return Wrap(func(ctx context.Context, _ struct{}) (T, error) { return op(ctx) }, policies...)(ctx, struct{}{})
}
