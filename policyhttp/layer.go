package policyhttp

import (
	"context"
	"fmt"
	"net/http"
	"sync"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/ratelimit"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/timeout"
)

type roundTrip = backstay.Func[*exchange, *http.Response]

// layer returns fn run through policy, with what is particular to responses: a permit is held and a timeout runs while the body is
// read, and the response of one attempt is out of the way before the next.
func layer(fn roundTrip, policy backstay.Policy) roundTrip {
	switch p := policy.(type) {
	case *breaker.Breaker, *ratelimit.Limiter:
		return backstay.Wrap(fn, policy)
	case *bulkhead.Bulkhead:
		return permitted(fn, p)
	case *timeout.Timeout:
		return bounded(fn, p)
	case *retry.Retrier:
		return backstay.Wrap(func(ctx context.Context, ex *exchange) (*http.Response, error) {
			ex.discard()
			return fn(ctx, ex)
		}, policy)
	case keyed:
		return func(ctx context.Context, ex *exchange) (*http.Response, error) {
			return layer(fn, p.of(ex.req))(ctx, ex)
		}
	default:
		return foreign(fn, policy)
	}
}

// repeats reports whether policy may run an operation twice. Of one that is not known this has to be assumed.
func repeats(policy backstay.Policy) bool {
	switch p := policy.(type) {
	case *breaker.Breaker, *bulkhead.Bulkhead, *ratelimit.Limiter, *timeout.Timeout:
		return false
	case keyed:
		return p.repeats()
	default:
		return true
	}
}

// permitted returns fn under a permit of b.
func permitted(fn roundTrip, b *bulkhead.Bulkhead) roundTrip {
	return func(ctx context.Context, ex *exchange) (*http.Response, error) {
		p := new(permit)
		var err error
		if p.Permit, err = b.Acquire(ctx); err != nil {
			return nil, err
		}
		return ex.hold(ctx, p, fn)
	}
}

// permit is one that whoever ends the body may give back.
type permit struct {
	bulkhead.Permit
	once sync.Once
}

func (p *permit) End(err error) error {
	p.once.Do(p.Abort)
	return err
}

// bounded returns fn with the time that t allows for it and for the response's body.
func bounded(fn roundTrip, t *timeout.Timeout) roundTrip {
	return func(ctx context.Context, ex *exchange) (*http.Response, error) {
		call := t.Start(ctx)
		return ex.hold(call.Context(), call, fn)
	}
}

// foreign returns fn run through a policy that is not of this module.
func foreign(fn roundTrip, policy backstay.Policy) roundTrip {
	return func(outer context.Context, ex *exchange) (*http.Response, error) {
		return backstay.Call(outer, func(ctx context.Context) (*http.Response, error) {
			ex.discard()
			l := newLifeline(ctx, outer)
			if l == nil {
				return fn(ctx, ex)
			}
			defer l.stop() // the policy is over at the headers
			resp, err := ex.hold(l, l, fn)
			if err != nil {
				l.await()
			}
			return resp, err
		}, policy)
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
