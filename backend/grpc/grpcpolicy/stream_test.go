package grpcpolicy_test

import (
	"context"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/backend/grpc/grpcpolicy"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/timeout"
)

// talk sends n messages, waits for the client to end its side, and returns err.
func talk(n int, err error) func(grpc.ServerStream) error {
	return func(ss grpc.ServerStream) error {
		for range n {
			if err := ss.SendMsg(wrapperspb.String("x")); err != nil {
				return err
			}
		}
		for {
			if e := ss.RecvMsg(new(wrapperspb.StringValue)); e != nil {
				return err
			}
		}
	}
}

func TestAPermitIsHeldUntilTheStreamEnds(t *testing.T) {
	for name, c := range map[string]struct {
		method string
		answer error
		finish func(t *testing.T, cs grpc.ClientStream, conn *grpc.ClientConn, cancel func())
		want   func(breaker.Stats) int64
	}{
		"EOF": {chat, nil, func(t *testing.T, cs grpc.ClientStream, _ *grpc.ClientConn, _ func()) {
			require.NoError(t, recv(cs))
			require.NoError(t, cs.CloseSend())
			require.ErrorIs(t, recv(cs), io.EOF)
			require.ErrorIs(t, recv(cs), io.EOF)
		}, func(s breaker.Stats) int64 { return s.Successes }},
		"error": {chat, status.Error(codes.Internal, "broken"), func(t *testing.T, cs grpc.ClientStream, _ *grpc.ClientConn, _ func()) {
			require.NoError(t, recv(cs))
			require.NoError(t, cs.CloseSend())
			err := recv(cs)
			require.Equal(t, status.Error(codes.Internal, "broken").Error(), err.Error())
		}, func(s breaker.Stats) int64 { return s.Failures }},
		"an answer": {chat, status.Error(codes.NotFound, ""), func(t *testing.T, cs grpc.ClientStream, _ *grpc.ClientConn, _ func()) {
			require.NoError(t, recv(cs))
			require.NoError(t, cs.CloseSend())
			require.Equal(t, codes.NotFound, status.Code(recv(cs)))
		}, func(s breaker.Stats) int64 { return s.Successes }},
		"the only reply": {sum, nil, func(t *testing.T, cs grpc.ClientStream, _ *grpc.ClientConn, _ func()) {
			require.NoError(t, cs.SendMsg(wrapperspb.String("x")))
			require.NoError(t, cs.CloseSend())
			require.NoError(t, recv(cs))
		}, func(s breaker.Stats) int64 { return s.Successes }},
		"cancelled, then read": {chat, nil, func(t *testing.T, cs grpc.ClientStream, _ *grpc.ClientConn, cancel func()) {
			cancel()
			for recv(cs) == nil {
			}
		}, func(s breaker.Stats) int64 { return s.Ignored }},
		"a message that cannot be sent": {chat, nil, func(t *testing.T, cs grpc.ClientStream, _ *grpc.ClientConn, _ func()) {
			require.Equal(t, codes.Internal, status.Code(cs.SendMsg("not a proto message")))
		}, func(s breaker.Stats) int64 { return s.Failures }},
	} {
		t.Run(name, func(t *testing.T) {
			b, bh := breaker.New(breaker.Config{}), bulkhead.New(bulkhead.Config{MaxConcurrent: 1})
			conn := dial(t, &service{stream: talk(1, c.answer)}, grpcpolicy.StreamClient(atOnce(3), b, bh))
			for i := range int64(20) {
				ctx, cancel := context.WithCancel(t.Context())
				cs, err := open(ctx, conn, c.method)
				require.NoError(t, err)
				_, err = open(ctx, conn, c.method)
				require.ErrorIs(t, err, bulkhead.ErrFull)
				require.Equal(t, 1, bh.Stats().Running)
				c.finish(t, cs, conn, cancel)
				require.Zero(t, bh.Stats().Running, "before the method returned")
				got := c.want(b.Stats())
				if name == "cancelled, then read" {
					got -= i + 1 // the rejections of the bulkhead are ignored too
				}
				require.Equal(t, i+1, got)
				cancel()
			}
		})
	}
}

func TestAPermitIsGivenBackWithoutAMethodCall(t *testing.T) {
	for name, finish := range map[string]func(cancel func(), conn *grpc.ClientConn){
		"context": func(cancel func(), _ *grpc.ClientConn) { cancel() },
		"closed":  func(_ func(), conn *grpc.ClientConn) { _ = conn.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			bh := bulkhead.New(bulkhead.Config{MaxConcurrent: 1, MaxQueue: 1})
			conn := dial(t, &service{stream: talk(0, nil)}, grpcpolicy.StreamClient(bh))
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			_, err := open(ctx, conn, chat)
			require.NoError(t, err)
			finish(cancel, conn)
			p, err := bh.Acquire(t.Context()) // waits until it is free
			require.NoError(t, err)
			p.Abort()
		})
	}
}

func TestATimeoutBoundsAStreamToItsEnd(t *testing.T) {
	total := timeout.New(timeout.Config{After: time.Hour})
	var tm *timeout.Timeout
	var cs grpc.ClientStream
	begin := func(after time.Duration) (err error) {
		tm = timeout.New(timeout.Config{After: after})
		conn := dial(t, &service{stream: talk(1, nil)}, grpcpolicy.StreamClient(total, tm))
		if cs, err = open(t.Context(), conn, chat); err != nil {
			return err
		}
		_ = cs.SendMsg(wrapperspb.String("x")) // what became of the stream is told by recv
		return recv(cs)
	}
	for after := 30 * time.Millisecond; ; after *= 4 { // until it is enough for the beginning, on however busy a machine
		err := begin(after)
		if err == nil {
			break
		}
		require.ErrorIs(t, err, timeout.ErrTimeout)
		require.Less(t, after, time.Minute, "the stream does not begin")
	}
	err := recv(cs)
	require.Equal(t, codes.DeadlineExceeded, status.Code(err))
	require.ErrorIs(t, err, timeout.ErrTimeout)
	require.Equal(t, int64(1), tm.Stats().TimedOut)
}

func TestAStreamIsNotMadeAgainOnceItWasHandedOver(t *testing.T) {
	for _, policy := range []backstay.Policy{atOnce(3), stubborn(3)} {
		made := 0
		s := &service{stream: func(grpc.ServerStream) error { made++; return status.Error(codes.Unavailable, "") }}
		cs, err := open(t.Context(), dial(t, s, grpcpolicy.StreamClient(policy)), chat)
		require.NoError(t, err)
		require.Equal(t, codes.Unavailable, status.Code(recv(cs)))
		require.Equal(t, 1, made)
	}
}

func TestOnlyAnUnavailableCreationIsRepeated(t *testing.T) {
	for code, want := range map[codes.Code]int{codes.Unavailable: 3, codes.Internal: 1, codes.DeadlineExceeded: 1} {
		for _, policy := range []backstay.Policy{atOnce(3), stubborn(3)} {
			made := 0
			streamer := func(context.Context, *grpc.StreamDesc, *grpc.ClientConn, string, ...grpc.CallOption) (grpc.ClientStream, error) {
				made++
				return nil, status.Error(code, "")
			}
			_, err := grpcpolicy.StreamClient(policy)(t.Context(), &grpc.StreamDesc{}, nil, chat, streamer)
			require.Equal(t, status.Error(code, ""), err)
			require.Equal(t, want, made)
		}
	}
}

func TestAPanicOfTheStreamerStaysOnItsGoroutine(t *testing.T) {
	bh := bulkhead.New(bulkhead.Config{MaxConcurrent: 1})
	boom := func(context.Context, *grpc.StreamDesc, *grpc.ClientConn, string, ...grpc.CallOption) (grpc.ClientStream, error) {
		panic("boom")
	}
	for _, policy := range []backstay.Policy{atOnce(3), stubborn(3)} {
		require.PanicsWithValue(t, "boom", func() {
			_, _ = grpcpolicy.StreamClient(policy, bh)(t.Context(), &grpc.StreamDesc{}, nil, chat, boom)
		})
		require.Zero(t, bh.Stats().Running)
	}
}

func TestManyStreamsWithRandomEndsLeaveTheBulkheadEmpty(t *testing.T) {
	bh := bulkhead.New(bulkhead.Config{MaxConcurrent: 8, MaxQueue: 1000})
	conn := dial(t, &service{stream: talk(1, nil)}, grpcpolicy.StreamClient(bh))
	var wg sync.WaitGroup
	for i := range 300 {
		wg.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if i%7 == 0 {
				cancel()
			}
			cs, err := open(ctx, conn, chat)
			if err != nil {
				return
			}
			if i%3 == 0 {
				go cancel()
			} else {
				_ = cs.CloseSend()
			}
			for recv(cs) == nil {
			}
		})
	}
	wg.Wait()
	require.Zero(t, bh.Stats().Running)
	require.Zero(t, bh.Stats().Waiting)
}
