package grpcpolicy

import (
	"context"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/backstay-go/backstay"
)

// UnaryClient returns an interceptor that makes unary calls through policies, the first outermost. idempotent tells by the full
// name of a method, such as /grpc.health.v1.Health/Check, whether it may be repeated; nil means that none may. It must be safe
// for concurrent use.
//
// A call returns the status error of the last attempt as it was, or an *[Error] when a policy ended it. UnaryClient panics on a
// nil policy.
func UnaryClient(idempotent func(method string) bool, policies ...backstay.Policy) grpc.UnaryClientInterceptor {
	policies = flatten("UnaryClient", policies)
	hinted := slices.ContainsFunc(policies, repeats)
	run := compose(policies)
	return func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		c := newCall(ctx, method, idempotent != nil && idempotent(method) || hasKey(ctx))
		c.do = func(ctx context.Context) (hints, error) {
			if !hinted {
				return hints{}, invoke(ctx, method, req, reply, cc, opts...)
			}
			var h hints
			var p peer.Peer
			err := invoke(ctx, method, req, reply, cc, append(slices.Clip(opts), grpc.Peer(&p), grpc.Trailer(&h.trailer))...)
			h.unsent = p.Addr == nil
			return h, err
		}
		return c.finish(run(ctx, c))
	}
}

// hasKey reports whether the call carries an idempotency key.
func hasKey(ctx context.Context) bool {
	md, ok := metadata.FromOutgoingContext(ctx)
	return ok && (len(md.Get("idempotency-key")) > 0 || len(md.Get("x-idempotency-key")) > 0)
}
