package oteltrace_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.uber.org/goleak"

	"github.com/backstay-go/backstay/backend/otel/oteltrace"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func record(t *testing.T) (*oteltrace.Tracer, *sdk.TracerProvider, *tracetest.SpanRecorder) {
	t.Helper()
	recorder := tracetest.NewSpanRecorder()
	provider := sdk.NewTracerProvider(sdk.WithSpanProcessor(recorder))
	t.Cleanup(func() {
		require.Len(t, recorder.Ended(), len(recorder.Started()), "a span was not ended")
	})
	return oteltrace.New(provider), provider, recorder
}

// named returns the only span of a name.
func named(t *testing.T, recorder *tracetest.SpanRecorder, name string) sdk.ReadOnlySpan {
	t.Helper()
	var found []sdk.ReadOnlySpan
	var names []string
	for _, s := range recorder.Ended() {
		names = append(names, s.Name())
		if s.Name() == name {
			found = append(found, s)
		}
	}
	require.Len(t, found, 1, "%s among %q", name, names)
	return found[0]
}

func attributes(s sdk.ReadOnlySpan) map[string]any {
	all := map[string]any{}
	for _, kv := range s.Attributes() {
		all[string(kv.Key)] = kv.Value.AsInterface()
	}
	return all
}

func requireChild(t *testing.T, child, parent sdk.ReadOnlySpan) {
	t.Helper()
	require.Equal(t, parent.SpanContext().TraceID(), child.SpanContext().TraceID(), "%s is in another trace than %s", child.Name(), parent.Name())
	require.Equal(t, parent.SpanContext().SpanID(), child.Parent().SpanID(), "%s is not a child of %s", child.Name(), parent.Name())
}
