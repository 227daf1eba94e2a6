// Grpcpolicy puts policies round a gRPC client and a gRPC server, here with the health service that gRPC brings along: the client repeats
// what may be repeated, and the server tells who calls too often when to come back.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/backstay-go/backstay/backend/grpc/grpcpolicy"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/ratelimit"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/timeout"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run tells the story, and returns an error if it did not happen as told.
func run(ctx context.Context, out io.Writer) (err error) {
	limiter := ratelimit.New(ratelimit.Config{Name: "health", Rate: 0.01, Burst: 7})
	busy := &atomic.Int64{} // how many of the next calls the handler fails
	server := grpc.NewServer(grpc.ChainUnaryInterceptor(grpcpolicy.UnaryServer(limiter), failing(busy)))
	healthpb.RegisterHealthServer(server, health.NewServer())
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	defer func() { server.Stop(); err = errors.Join(err, <-served) }()

	// Only the caller knows which methods may be repeated.
	reads := func(method string) bool { return method == healthpb.Health_Check_FullMethodName }
	guard := breaker.New(breaker.Config{Name: "health", ConsecutiveFailures: 10})
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithChainUnaryInterceptor(grpcpolicy.UnaryClient(reads, // the first policy is the outermost
			timeout.New(timeout.Config{Name: "health", After: 5 * time.Second}),
			retry.New(retry.Config{Name: "health", MaxAttempts: 3, InitialInterval: 5 * time.Millisecond}),
			guard)))
	if err != nil {
		return err
	}
	defer conn.Close()
	s := &story{out: out, client: healthpb.NewHealthClient(conn), guard: guard}

	busy.Store(2)
	s.check(ctx, "the server is busy twice:", "", codes.OK, 2)
	s.check(ctx, "there is no such service:", "unicorns", codes.NotFound, 2) // an answer, and no failure
	busy.Store(3)
	s.check(ctx, "the server stays busy:", "", codes.Unavailable, 5)
	// The limiter has spent its seven tokens by now, and the next one comes in a hundred seconds: more than the call may take.
	s.check(ctx, "that was too much:", "", codes.ResourceExhausted, 6)
	return s.wrong
}

// failing is a handler's trouble.
func failing(busy *atomic.Int64) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		if busy.Add(-1) >= 0 {
			return nil, status.Error(codes.Unavailable, "busy")
		}
		return handle(ctx, req)
	}
}

// A story prints a line for each call and notes what is not as it should be.
type story struct {
	out    io.Writer
	client healthpb.HealthClient
	guard  *breaker.Breaker
	wrong  error
}

func (s *story) check(ctx context.Context, what, service string, want codes.Code, wantFailures int64) {
	_, err := s.client.Check(ctx, &healthpb.HealthCheckRequest{Service: service})
	got, failures := status.Code(err), s.guard.Stats().Failures
	fmt.Fprintf(s.out, "%-26s %-18s attempts that failed so far: %d\n", what, got, failures)
	if got != want || failures != wantFailures {
		s.wrong = errors.Join(s.wrong, fmt.Errorf("%s %w after %d failures, want %v after %d", what, err, failures, want, wantFailures))
	}
}
