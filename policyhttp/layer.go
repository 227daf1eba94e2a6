package policyhttp

import (
	"context"
	"fmt"
	"net/http"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/ratelimit"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/timeout"
)

type roundTrip = backstay.Func[*exchange, *http.Response]

// layer returns fn run through policy, with what is particular to responses: a permit is held while the body is read, and the
// response of one attempt is out of the way before the next.
func layer(fn roundTrip, policy backstay.Policy) roundTrip {
	switch p := policy.(type) {
	case *bulkhead.Bulkhead:
		return hold(fn, p)
	case keyed:
		return func(ctx context.Context, ex *exchange) (*http.Response, error) {
			return layer(fn, p.of(ex.req))(ctx, ex)
		}
	}
	if !kindOf(policy).repeats {
		return backstay.Wrap(fn, policy)
	}
	return backstay.Wrap(func(ctx context.Context, ex *exchange) (*http.Response, error) {
		ex.discard()
		return fn(ctx, ex)
	}, policy)
}

// kind is what policies may do, as far as it matters here.
type kind struct {
	repeats bool // may run an operation twice
	foreign bool // may cancel it for a reason of its own
}

// kindOf says what policy may do. Of one that is not known the worst has to be assumed.
func kindOf(policy backstay.Policy) kind {
	switch p := policy.(type) {
	case *breaker.Breaker, *bulkhead.Bulkhead, *ratelimit.Limiter, *timeout.Timeout:
		return kind{}
	case *retry.Retrier:
		return kind{repeats: true}
	case keyed:
		return p.kind()
	default:
		return kind{repeats: true, foreign: true}
	}
}

// hold returns fn under a permit of b, which is given back when the response's body ends, or at once without a body.
func hold(fn roundTrip, b *bulkhead.Bulkhead) roundTrip {
	return func(ctx context.Context, ex *exchange) (*http.Response, error) {
		permit, err := b.Acquire(ctx)
		if err != nil {
			return nil, err
		}
		kept := false
		defer func() {
			if !kept {
				permit.Abort()
			}
		}()
		resp, err := fn(ctx, ex)
		kept = holdUntilEnd(resp, permit.Abort)
		return resp, err
	}
}

// flatten replaces chains by their policies and refuses nil.
func flatten(caller string, policies []backstay.Policy) []backstay.Policy {
	var flat []backstay.Policy
	for i, policy := range policies {
		if policy == nil {
			panic(fmt.Sprintf("policyhttp: %s: policy %d is nil", caller, i))
		}
		if chain, ok := policy.(interface{ Policies() []backstay.Policy }); ok {
			flat = append(flat, flatten(caller, chain.Policies())...)
			continue
		}
		flat = append(flat, policy)
	}
	return flat
}
