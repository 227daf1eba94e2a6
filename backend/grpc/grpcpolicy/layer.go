package grpcpolicy

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/ratelimit"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/timeout"
)

type run = func(ctx context.Context, c *call) error

// compose returns what makes a call through policies.
func compose(policies []backstay.Policy) run {
	fn := func(ctx context.Context, c *call) error { return c.attempt(ctx) }
	for _, policy := range slices.Backward(policies) {
		fn = layer(fn, policy)
	}
	return fn
}

func layer(fn run, policy backstay.Policy) run {
	k, ok := policy.(keyed)
	if !ok {
		return backstay.WrapErr(fn, policy)
	}
	return func(ctx context.Context, c *call) error { return layer(fn, k.of(ctx, c.method))(ctx, c) }
}

// flatten replaces chains by their policies and refuses nil.
func flatten(caller string, policies []backstay.Policy) []backstay.Policy {
	var flat []backstay.Policy
	for i, policy := range policies {
		if policy == nil {
			panic(fmt.Sprintf("grpcpolicy: %s: policy %d is nil", caller, i))
		}
		if chain, ok := policy.(interface{ Policies() []backstay.Policy }); ok {
			flat = append(flat, flatten(caller, chain.Policies())...)
			continue
		}
		flat = append(flat, policy)
	}
	return flat
}

// forServer is flatten for handlers, which cannot run twice.
func forServer(caller string, policies []backstay.Policy) []backstay.Policy {
	flat := flatten(caller, policies)
	for i, policy := range flat {
		if _, ok := policy.(*retry.Retrier); ok {
			panic(fmt.Sprintf("grpcpolicy: %s: policy %d is a retrier: a handler cannot run twice", caller, i))
		}
	}
	return flat
}

// repeats reports whether policy may make a call twice. Of one that is not known this has to be assumed.
func repeats(policy backstay.Policy) bool {
	switch policy.(type) {
	case *breaker.Breaker, *bulkhead.Bulkhead, *ratelimit.Limiter, *timeout.Timeout:
		return false
	default:
		return true
	}
}

// PerMethod returns a policy for the interceptors of this package that applies the policy which set keeps for the full name of
// the method, such as /grpc.health.v1.Health/Check. Any set with a method Get will do, such as *breaker.Set[string]. It panics
// on nil.
func PerMethod[P backstay.Policy](set interface{ Get(method string) P }) backstay.Policy {
	return PerKey(set, func(_ context.Context, method string) string { return method })
}

// PerKey is [PerMethod] for any key: a tenant from the metadata, a peer's address. keyOf must be safe for concurrent use and is
// asked once for each attempt. It panics on nil.
func PerKey[K comparable, P backstay.Policy](set interface{ Get(key K) P }, keyOf func(ctx context.Context, method string) K) backstay.Policy {
	if set == nil || keyOf == nil {
		panic("grpcpolicy: PerKey: the set or the function is nil")
	}
	return perKey[K, P]{set.Get, keyOf}
}

// keyed is a policy that depends on the call.
type keyed interface {
	of(ctx context.Context, method string) backstay.Policy
}

type perKey[K comparable, P backstay.Policy] struct {
	get   func(K) P
	keyOf func(context.Context, string) K
}

func (k perKey[K, P]) of(ctx context.Context, method string) backstay.Policy {
	return k.get(k.keyOf(ctx, method))
}

// Do refuses: outside an interceptor there is no call to take the key from.
func (k perKey[K, P]) Do(context.Context, func(context.Context) error) error {
	return errors.New("grpcpolicy: PerKey and PerMethod work in this package's interceptors only")
}
