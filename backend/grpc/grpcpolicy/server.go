package grpcpolicy

import (
	"context"

	"google.golang.org/grpc"

	"github.com/backstay-go/backstay"
)

// UnaryServer returns an interceptor that runs handlers through policies, the first outermost. A call that they refuse is
// answered with ResourceExhausted by a rate limiter or a bulkhead and with Unavailable by anything else, and told when to come
// back; the handler does not run. It panics on nil and on a retrier: a handler cannot run twice.
func UnaryServer(policies ...backstay.Policy) grpc.UnaryServerInterceptor {
	run := compose(forServer("UnaryServer", policies))
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		var reply any
		c := newCall(ctx, info.FullMethod, false)
		c.do = func(ctx context.Context) (_ hints, err error) {
			reply, err = handle(ctx, req)
			return hints{}, err
		}
		if err := c.answer(run(ctx, c)); err != nil {
			if e, ok := err.(*Error); ok && e.shed {
				_ = grpc.SetTrailer(ctx, e.trailer()) // without a server there is nobody to tell
			}
			return nil, err
		}
		return reply, nil
	}
}

// StreamServer is [UnaryServer] for streams. Policies hold until the handler returns.
func StreamServer(policies ...backstay.Policy) grpc.StreamServerInterceptor {
	run := compose(forServer("StreamServer", policies))
	return func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
		c := newCall(ss.Context(), info.FullMethod, false)
		c.do = func(ctx context.Context) (hints, error) { return hints{}, handle(srv, &serverStream{ss, ctx}) }
		err := c.answer(run(ss.Context(), c))
		if e, ok := err.(*Error); ok && e.shed {
			ss.SetTrailer(e.trailer())
		}
		return err
	}
}

// answer is finish for a server: what was refused before the handler ran is shed.
func (c *call) answer(err error) error {
	err = c.finish(err)
	if e, ok := err.(*Error); ok {
		e.shed = !c.made && c.ctx.Err() == nil
	}
	return err
}

// serverStream has the context that the policies derived.
type serverStream struct {
	grpc.ServerStream
	ctx context.Context
}

// Context is the handler's context.
func (s *serverStream) Context() context.Context { return s.ctx }
