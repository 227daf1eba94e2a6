package grpcpolicy_test

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/backstay-go/backstay/retry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	echo = "/test.Service/Echo"
	chat = "/test.Service/Chat"
	sum  = "/test.Service/Sum"
)

// service is a hand-written grpc service.
type service struct {
	unary  func(ctx context.Context) error
	stream func(grpc.ServerStream) error
}

func (s *service) register(server *grpc.Server) {
	desc := grpc.ServiceDesc{ServiceName: "test.Service", HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{MethodName: "Echo",
		Handler: func(_ any, ctx context.Context, dec func(any) error, intercept grpc.UnaryServerInterceptor) (any, error) {
			in := new(wrapperspb.StringValue)
			if err := dec(in); err != nil {
				return nil, err
			}
			handle := func(ctx context.Context, _ any) (any, error) { return in, s.unary(ctx) }
			if intercept == nil {
				return handle(ctx, in)
			}
			return intercept(ctx, in, &grpc.UnaryServerInfo{Server: s, FullMethod: echo}, handle)
		}}}}
	for _, d := range streams {
		d.Handler = func(_ any, ss grpc.ServerStream) error { return s.stream(ss) }
		desc.Streams = append(desc.Streams, d)
	}
	server.RegisterService(&desc, s)
}

var streams = map[string]grpc.StreamDesc{
	chat: {StreamName: "Chat", ClientStreams: true, ServerStreams: true},
	sum:  {StreamName: "Sum", ClientStreams: true},
}

// dial starts a server in memory and returns a connection to it.
func dial(t testing.TB, s *service, opts ...any) *grpc.ClientConn {
	t.Helper()
	var serverOpts []grpc.ServerOption
	dialOpts := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	for _, opt := range opts {
		switch o := opt.(type) {
		case grpc.ServerOption:
			serverOpts = append(serverOpts, o)
		case grpc.DialOption:
			dialOpts = append(dialOpts, o)
		case grpc.UnaryClientInterceptor:
			dialOpts = append(dialOpts, grpc.WithChainUnaryInterceptor(o))
		case grpc.StreamClientInterceptor:
			dialOpts = append(dialOpts, grpc.WithChainStreamInterceptor(o))
		default:
			t.Fatalf("option %T", opt)
		}
	}
	listener := bufconn.Listen(1 << 16)
	server := grpc.NewServer(serverOpts...)
	s.register(server)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener)
	}()
	dialOpts = append(dialOpts, grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	conn, err := grpc.NewClient("passthrough:///test", dialOpts...)
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = conn.Close() // some tests have closed it
		server.Stop()
		<-served
	})
	return conn
}

func call(ctx context.Context, conn grpc.ClientConnInterface, opts ...grpc.CallOption) error {
	out := new(wrapperspb.StringValue)
	err := conn.Invoke(ctx, echo, wrapperspb.String("hello"), out, opts...)
	if err == nil && out.Value != "hello" {
		return errors.New("not the reply: " + out.Value)
	}
	return err
}

func open(ctx context.Context, conn grpc.ClientConnInterface, method string) (grpc.ClientStream, error) {
	desc := streams[method]
	return conn.NewStream(ctx, &desc, method)
}

func recv(cs grpc.ClientStream) error { return cs.RecvMsg(new(wrapperspb.StringValue)) }

// failing answers with one code after the other, and then with the last one.
func failing(sequence ...codes.Code) (*service, *atomic.Int64) {
	calls := new(atomic.Int64)
	return &service{unary: func(context.Context) error {
		n := int(calls.Add(1))
		return status.Error(sequence[min(n, len(sequence))-1], "as told")
	}}, calls
}

func anyMethod(string) bool { return true }

// atOnce repeats without a delay.
func atOnce(attempts int) *retry.Retrier {
	return retry.New(retry.Config{MaxAttempts: attempts, InitialInterval: -1})
}

// stubborn is a foreign policy that repeats everything.
type stubborn int

func (n stubborn) Do(ctx context.Context, op func(context.Context) error) error {
	err := op(ctx)
	for range n - 1 {
		if err != nil {
			err = op(ctx)
		}
	}
	return err
}

// verdict is a foreign policy that runs the operation and says something else.
type verdict struct{ err error }

func (v verdict) Do(ctx context.Context, op func(context.Context) error) error {
	_ = op(ctx)
	return v.err
}

func withRetryInfo(code codes.Code, wait time.Duration) error {
	s, err := status.New(code, "later").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(wait)})
	if err != nil {
		panic(err)
	}
	return s.Err()
}

func setPushback(ctx context.Context, values ...string) {
	md := metadata.MD{"grpc-retry-pushback-ms": values}
	if err := grpc.SetTrailer(ctx, md); err != nil {
		panic(err)
	}
}
