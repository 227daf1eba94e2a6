package grpcpolicy

import (
	"context"
	"errors"
	"io"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/timeout"
)

// StreamClient returns an interceptor that makes streams through policies, the first outermost, which hold until the stream
// ends. They run on a goroutine of their own, which ends then too. Creating a stream blocks as long as they do.
//
// A stream's methods return the errors of the stream as they are, or an *[Error] when a timeout of the policies ended it.
// StreamClient panics on a nil policy.
func StreamClient(policies ...backstay.Policy) grpc.StreamClientInterceptor {
	run := compose(flatten("StreamClient", policies))
	return func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		l := &life{call: newCall(ctx, method, false), attempts: make(chan context.Context),
			opened: make(chan error, 1), ended: make(chan error, 1), done: make(chan struct{})}
		l.call.do = l.hold
		go func() {
			defer close(l.done)
			l.verdict = run(ctx, l.call)
		}()
		for {
			select {
			case <-l.done:
				return nil, l.call.finish(l.verdict)
			case ctx := <-l.attempts:
				cs, err := l.open(func() (grpc.ClientStream, error) {
					return open(ctx, desc, cc, method, append(slices.Clip(opts), l.onClose(cc))...)
				})
				if err == nil {
					return &clientStream{cs, l, !desc.ServerStreams}, nil
				}
			}
		}
	}
}

// life is that of one stream. Policies run on one goroutine and hold meanwhile; streams are made on that of the caller.
type life struct {
	call     *call
	attempts chan context.Context // each asks the caller's goroutine for a stream
	opened   chan error           // whether it got one
	ended    chan error           // how the stream ended; the first word counts
	done     chan struct{}        // closed when the policies hold nothing any more
	verdict  error                // of the policies, after done
}

// hold is the operation of the policies: the whole life of a stream. It is made again only if no stream came of it.
func (l *life) hold(ctx context.Context) (hints, error) {
	l.attempts <- ctx
	if err := <-l.opened; err != nil {
		return hints{unsent: true}, err
	}
	select {
	case err := <-l.ended:
		return hints{}, err
	case <-ctx.Done():
		return hints{}, status.FromContextError(ctx.Err()).Err()
	}
}

// open makes the stream and tells hold, also when that panics.
func (l *life) open(open func() (grpc.ClientStream, error)) (cs grpc.ClientStream, err error) {
	err = errNotReturned
	defer func() {
		if l.opened <- err; err == errNotReturned {
			<-l.done
		}
	}()
	cs, err = open()
	return cs, err
}

// onClose ends the life of a stream whose connection is closed, which nobody need notice by a call. What happens on an open
// connection is left to the stream's methods: interceptors further in may replace a stream that broke.
func (l *life) onClose(cc *grpc.ClientConn) grpc.CallOption {
	return grpc.OnFinish(func(err error) {
		if cc.GetState() == connectivity.Shutdown {
			l.end(err)
		}
	})
}

func (l *life) end(err error) {
	select {
	case l.ended <- err:
	default: // it has ended already
	}
}

// clientStream tells its life of its end.
type clientStream struct {
	grpc.ClientStream
	life   *life
	single bool // there is one reply
}

// Header ends the life on an error.
func (s *clientStream) Header() (metadata.MD, error) {
	md, err := s.ClientStream.Header()
	if err != nil {
		return md, s.end(err)
	}
	return md, nil
}

// SendMsg ends the life on an error, but for io.EOF: then RecvMsg has the reason.
func (s *clientStream) SendMsg(m any) error {
	err := s.ClientStream.SendMsg(m)
	if err != nil && !errors.Is(err, io.EOF) {
		return s.end(err)
	}
	return err
}

// RecvMsg ends the life on an error, and after the only reply.
func (s *clientStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if err != nil || s.single {
		return s.end(err)
	}
	return nil
}

// end returns when everything held was given back, with what the caller gets for err.
func (s *clientStream) end(err error) error {
	l := s.life
	if errors.Is(err, io.EOF) {
		l.end(nil)
	} else {
		l.end(err)
	}
	<-l.done
	if codeOf(err) == codes.DeadlineExceeded && errors.Is(l.verdict, timeout.ErrTimeout) {
		return ended(l.call.ctx, l.call.method, l.verdict)
	}
	return err
}
