package grpcpolicy_test

import (
	"context"
	"errors"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/backstay-go/backstay/backend/grpc/grpcpolicy"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/ratelimit"
	"github.com/backstay-go/backstay/retry"
)

// start runs a server with the health service and returns a client of it.
func start(server *grpc.Server, opts ...grpc.DialOption) (client healthpb.HealthClient, stop func()) {
	listener := bufconn.Listen(1 << 16)
	healthpb.RegisterHealthServer(server, health.NewServer())
	go func() { _ = server.Serve(listener) }()
	opts = append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	conn, err := grpc.NewClient("passthrough:///example", opts...)
	if err != nil {
		panic(err)
	}
	return healthpb.NewHealthClient(conn), func() {
		_ = conn.Close()
		server.Stop()
	}
}

func ExampleUnaryClient() {
	calls := 0
	busyAtFirst := func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		if calls++; calls < 3 {
			return nil, status.Error(codes.Unavailable, "warming up")
		}
		return handle(ctx, req)
	}
	reads := func(method string) bool { return method == healthpb.Health_Check_FullMethodName }
	r := retry.New(retry.Config{Name: "health", InitialInterval: -1})
	client, stop := start(grpc.NewServer(grpc.UnaryInterceptor(busyAtFirst)),
		grpc.WithChainUnaryInterceptor(grpcpolicy.UnaryClient(reads, r)))
	defer stop()

	reply, err := client.Check(context.Background(), &healthpb.HealthCheckRequest{})
	fmt.Println(reply.GetStatus(), err, calls)
	// Output: SERVING <nil> 3
}

func ExampleUnaryServer() {
	l := ratelimit.New(ratelimit.Config{Name: "health", Rate: 0.001, Burst: 1})
	client, stop := start(grpc.NewServer(grpc.ChainUnaryInterceptor(grpcpolicy.UnaryServer(l))))
	defer stop()

	for range 2 {
		_, err := client.Check(context.Background(), &healthpb.HealthCheckRequest{})
		fmt.Println(status.Code(err))
	}
	// Output:
	// OK
	// ResourceExhausted
}

func ExampleStreamClient() {
	b := breaker.New(breaker.Config{Name: "health", Mode: "force_open"})
	client, stop := start(grpc.NewServer(), grpc.WithChainStreamInterceptor(grpcpolicy.StreamClient(b)))
	defer stop()

	_, err := client.Watch(context.Background(), &healthpb.HealthCheckRequest{})
	fmt.Println(status.Code(err), errors.Is(err, breaker.ErrOpen))
	// Output: Unavailable true
}
