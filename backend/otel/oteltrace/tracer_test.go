package oteltrace_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/backstay-go/backstay/backend/otel/oteltrace"
	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/memsaga"
)

func TestFuncAndQuery(t *testing.T) {
	tr, _, recorder := record(t)
	failed := errors.New(strings.Repeat("x", 5000))
	inner := oteltrace.Query(tr, oteltrace.Database{System: "postgresql", Operation: "SELECT", Collection: "orders", Namespace: "shop"},
		func(context.Context, int) (string, error) { return "row", failed })
	out, err := oteltrace.Func(tr, "price", func(ctx context.Context, in int) (string, error) { return inner(ctx, in) })(t.Context(), 1)
	require.Equal(t, "row", out)
	require.Same(t, failed, err)
	query := named(t, recorder, "SELECT orders")
	requireChild(t, query, named(t, recorder, "price"))
	require.Equal(t, trace.SpanKindClient, query.SpanKind())
	require.Equal(t, map[string]any{
		"db.system.name": "postgresql", "db.operation.name": "SELECT", "db.collection.name": "orders", "db.namespace": "shop",
		"error.type": "*errors.errorString",
	}, attributes(query))
	require.Len(t, query.Status().Description, 1024)
	for want, d := range map[string]oteltrace.Database{
		"GET 0": {Operation: "GET", Namespace: "0"}, "PING": {Operation: "PING", System: "redis"}, "redis": {System: "redis"},
	} {
		_, err := oteltrace.Query(tr, d, func(context.Context, int) (int, error) { return 0, nil })(t.Context(), 0)
		require.NoError(t, err)
		require.Equal(t, codes.Unset, named(t, recorder, want).Status().Code)
	}
}

func deepest(context.Context, int) (int, error) { panic("deep") }

func TestAPanicGoesThroughWithItsStack(t *testing.T) {
	tr, _, recorder := record(t)
	fn := oteltrace.Func(tr, "f", deepest)
	require.PanicsWithValue(t, "deep", func() { _, _ = fn(t.Context(), 0) })
	span := named(t, recorder, "f")
	require.Equal(t, "panic", attributes(span)["error.type"])
	require.Empty(t, span.Events(), "the span has recovered the panic, and the stack of the re-panic is another")
}

type order struct {
	Trace oteltrace.Carried `json:"trace"`
	Paid  bool              `json:"paid"`
}

func TestATraceGoesThroughASaga(t *testing.T) {
	tr, provider, recorder := record(t)
	traced := func(step saga.Step[order]) saga.Step[order] {
		return oteltrace.Step(tr, func(s *order) oteltrace.Carried { return s.Trace }, step)
	}
	tries := 0
	retry := saga.Retry{Initial: time.Millisecond, Max: time.Millisecond}
	d := saga.MustDefine("order", 1,
		traced(saga.Step[order]{
			Name: "reserve", Retry: retry,
			Do: func(ctx context.Context, _ *order) error {
				if tries++; tries == 1 {
					return errors.New("busy")
				}
				require.True(t, trace.SpanContextFromContext(ctx).IsValid())
				return nil
			},
			Undo: func(context.Context, *order) error { return nil },
		}),
		traced(saga.Await("payment", "paid", time.Hour, func(context.Context, *order, bool) error { return saga.Permanent(errors.New("refused")) })),
	)
	runner, err := saga.NewRunner(memsaga.New(), saga.Config{}, d)
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- runner.Run(ctx) }()

	request, root := provider.Tracer("test").Start(ctx, "request")
	require.NoError(t, saga.Start(request, runner, d, "o-1", order{Trace: oteltrace.Carry(request)}))
	require.NoError(t, saga.Send(ctx, runner, "o-1", "paid", true))
	root.End()
	_, err = saga.Wait(ctx, runner, d, "o-1")
	require.ErrorIs(t, err, saga.ErrCompensated)
	stop()
	require.NoError(t, <-done)

	parent := named(t, recorder, "request")
	var attempts []any
	for _, s := range recorder.Ended() {
		if s.Name() == "order reserve do" {
			requireChild(t, s, parent)
			attempts = append(attempts, attributes(s)["backstay.attempt"])
		}
	}
	require.Equal(t, []any{int64(1), int64(2)}, attempts)
	undo := named(t, recorder, "order reserve undo")
	requireChild(t, undo, parent)
	require.Equal(t, map[string]any{
		"backstay.saga": "order", "backstay.saga.instance": "o-1", "backstay.saga.step": "reserve", "backstay.saga.direction": "undo",
		"backstay.attempt": int64(1),
	}, attributes(undo))
}

// Each branch of a group has a span for each attempt, under its own name, in the trace of the saga.
func TestTheBranchesOfAGroupHaveSpans(t *testing.T) {
	tr, provider, recorder := record(t)
	carried := func(s *order) oteltrace.Carried { return s.Trace }
	booked := func(ctx context.Context, _ order) (string, error) {
		require.True(t, trace.SpanContextFromContext(ctx).IsValid())
		return "booked", ctx.Err()
	}
	tries := 0
	d := saga.MustDefine("trip", 1,
		saga.Parallel("book",
			oteltrace.Branch(tr, carried, saga.Branch[order, string]{
				Name: "flight", Retry: saga.Retry{Initial: time.Millisecond, Max: time.Millisecond},
				Do: func(ctx context.Context, s order) (string, error) {
					if tries++; tries == 1 {
						return "", errors.New("busy")
					}
					return booked(ctx, s)
				},
				Undo: func(_ context.Context, _ order, r string) error {
					require.Equal(t, "booked", r, "the result goes through")
					return nil
				},
			}),
			oteltrace.Branch(tr, nil, saga.Branch[order, string]{Name: "hotel", Do: booked}),
		),
		saga.Step[order]{Name: "pay", Do: func(context.Context, *order) error { return saga.Permanent(errors.New("refused")) }},
	)
	runner, err := saga.NewRunner(memsaga.New(), saga.Config{}, d)
	require.NoError(t, err)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- runner.Run(ctx) }()
	request, root := provider.Tracer("test").Start(ctx, "request")
	require.NoError(t, saga.Start(request, runner, d, "t-1", order{Trace: oteltrace.Carry(request)}))
	root.End()
	_, err = saga.Wait(ctx, runner, d, "t-1")
	require.ErrorIs(t, err, saga.ErrCompensated)
	stop()
	require.NoError(t, <-done)

	parent := named(t, recorder, "request")
	var attempts []any
	for _, s := range recorder.Ended() {
		if s.Name() == "trip book/flight do" {
			requireChild(t, s, parent)
			attempts = append(attempts, attributes(s)["backstay.attempt"])
		}
	}
	require.Equal(t, []any{int64(1), int64(2)}, attempts)
	undo := named(t, recorder, "trip book/flight undo")
	requireChild(t, undo, parent)
	require.Equal(t, map[string]any{
		"backstay.saga": "trip", "backstay.saga.instance": "t-1", "backstay.saga.step": "book/flight", "backstay.saga.direction": "undo",
		"backstay.attempt": int64(1),
	}, attributes(undo))
	require.False(t, named(t, recorder, "trip book/hotel do").Parent().IsValid(), "without a trace in the State it begins one")
}

func TestCarriedSurvivesJSON(t *testing.T) {
	_, provider, _ := record(t)
	ctx, span := provider.Tracer("test").Start(t.Context(), "x")
	span.End()
	data, err := json.Marshal(oteltrace.Carry(ctx))
	require.NoError(t, err)
	var carried oteltrace.Carried
	require.NoError(t, json.Unmarshal(data, &carried))
	got := trace.SpanContextFromContext(carried.Context(context.Background()))
	require.Equal(t, span.SpanContext().TraceID(), got.TraceID())
	require.Equal(t, span.SpanContext().SpanID(), got.SpanID())
	require.True(t, got.IsRemote())

	require.Zero(t, oteltrace.Carry(context.Background()))
	require.Equal(t, t.Context(), oteltrace.Carried{Traceparent: "junk"}.Context(t.Context()))
}

func TestNilIsRefused(t *testing.T) {
	tr, _, _ := record(t)
	for _, fn := range []func(){
		func() { oteltrace.New(nil) }, func() { oteltrace.Func[int, int](tr, "x", nil) }, func() { oteltrace.Func(nil, "x", deepest) },
		func() { tr.Publisher("", nil) }, func() { tr.Handler("", "", nil) }, func() { tr.Middleware(nil) },
		func() { oteltrace.Outbox[int](tr, nil) }, func() { oteltrace.Step(nil, nil, saga.Step[int]{}) },
		func() { oteltrace.Branch(nil, nil, saga.Branch[int, int]{}) },
	} {
		require.Panics(t, fn)
	}
}

// BenchmarkFunc measures a function alone and one in a span of a provider that records nothing.
func BenchmarkFunc(b *testing.B) {
	fn := func(_ context.Context, n int) (int, error) { return n, nil }
	for name, f := range map[string]func(context.Context, int) (int, error){
		"alone": fn, "not recorded": oteltrace.Func(oteltrace.New(noop.NewTracerProvider()), "f", fn),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = f(context.Background(), 1)
			}
		})
	}
}
