package otelmetrics_test

import (
	"context"
	"encoding/json"
	"math"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric/noop"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/backstay-go/backstay/backend/otel/otelmetrics"
)

// reading is what one collection found, by name and attributes.
type reading map[string]float64

func collect(t *testing.T, reader sdk.Reader) (reading, error) {
	t.Helper()
	var all metricdata.ResourceMetrics
	err := reader.Collect(context.Background(), &all)
	found := reading{}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			switch data := m.Data.(type) {
			case metricdata.Gauge[float64]:
				for _, p := range data.DataPoints {
					found["gauge "+m.Name+unit(m.Unit)+encoded(p.Attributes)] = p.Value
				}
			case metricdata.Sum[float64]:
				require.True(t, data.IsMonotonic)
				for _, p := range data.DataPoints {
					found["counter "+m.Name+unit(m.Unit)+encoded(p.Attributes)] = p.Value
				}
			default:
				t.Errorf("%s is a %T", m.Name, data)
			}
		}
	}
	return found, err
}

func unit(u string) string {
	if u == "" {
		return ""
	}
	return " in " + u + " "
}

func encoded(set attribute.Set) string {
	return "{" + set.Encoded(attribute.DefaultEncoder()) + "}"
}

func provide(t *testing.T) (*sdk.MeterProvider, *sdk.ManualReader) {
	t.Helper()
	reader := sdk.NewManualReader()
	provider := sdk.NewMeterProvider(sdk.WithReader(reader))
	t.Cleanup(func() { require.NoError(t, provider.Shutdown(context.Background())) })
	return provider, reader
}

func TestCountersGaugesSecondsAndLabels(t *testing.T) {
	provider, reader := provide(t)
	o := &thing{kind: "Job Queue.v2", name: "mail", metrics: map[string]float64{
		"depth": 3, "done_total": 7, "oldest_age_seconds": 1.5, "work_seconds_total": 9, `failed_total{step="book \"a\" room",by="x"}`: 2,
	}}
	reg, err := otelmetrics.Register(provider, otelmetrics.Config{}, o)
	require.NoError(t, err)
	got, err := collect(t, reader)
	require.NoError(t, err)
	require.Equal(t, reading{
		"gauge backstay.job_queue.v2.depth{backstay.name=mail}":                            3,
		"counter backstay.job_queue.v2.done{backstay.name=mail}":                           7,
		"gauge backstay.job_queue.v2.oldest_age in s {backstay.name=mail}":                 1.5,
		"counter backstay.job_queue.v2.work in s {backstay.name=mail}":                     9,
		`counter backstay.job_queue.v2.failed{backstay.name=mail,by=x,step=book "a" room}`: 2,
	}, got)

	o.set("depth", 4)
	got, err = collect(t, reader)
	require.NoError(t, err)
	require.InDelta(t, 4, got["gauge backstay.job_queue.v2.depth{backstay.name=mail}"], 0)

	require.NoError(t, reg.Close())
	require.NoError(t, reg.Close())
	got, err = collect(t, reader)
	require.NoError(t, err)
	require.Empty(t, got, "Close unregisters")
}

func TestSeriesAreBounded(t *testing.T) {
	provider, reader := provide(t)
	o := &thing{kind: "k", name: strings.Repeat("n", 1000), metrics: map[string]float64{`a{key="1"}`: 1, "b": 1}}
	reg, err := otelmetrics.Register(provider, otelmetrics.Config{MaxSeries: 3}, o)
	require.NoError(t, err)
	o.set(`a{key="2"}`, 1)
	got, err := collect(t, reader)
	require.NoError(t, err)
	require.Len(t, got, 3, "a new label of a known metric is exported")
	require.Contains(t, got, "gauge backstay.k.b{backstay.name="+strings.Repeat("n", 256)+"}")

	o.set(`a{key="3"}`, 1)
	o.set("late", 1)
	o.set("Wrong", 1)
	o.set("b", math.NaN())
	got, err = collect(t, reader)
	require.NoError(t, err)
	require.Len(t, got, 2)
	require.Equal(t, otelmetrics.Stats{Objects: 1, Series: 3, Dropped: 3}, reg.Stats())
	require.NoError(t, reg.Close())
}

func TestAPanicCostsOneObjectsNumbers(t *testing.T) {
	provider, reader := provide(t)
	broken := &thing{kind: "k", name: "broken", metrics: map[string]float64{"a": 1}}
	sound := &thing{kind: "k", name: "sound", metrics: map[string]float64{"a": 1}}
	reg, err := otelmetrics.Register(provider, otelmetrics.Config{}, broken, sound)
	require.NoError(t, err)
	broken.broken = true
	got, err := collect(t, reader)
	require.ErrorContains(t, err, `k "broken": panics: out of order`)
	require.Equal(t, reading{"gauge backstay.k.a{backstay.name=sound}": 1}, got)
	require.EqualValues(t, 1, reg.Stats().Failures)
	require.NoError(t, reg.Close())
}

func TestRegisterNamesEveryFault(t *testing.T) {
	provider, reader := provide(t)
	broken := &thing{kind: "k", name: "broken", broken: true}
	of := func(name string, metrics ...string) *thing {
		o := &thing{kind: "k", name: name, metrics: map[string]float64{}}
		for _, m := range metrics {
			o.metrics[m] = 1
		}
		return o
	}
	_, err := otelmetrics.Register(provider, otelmetrics.Config{Name: "t", MaxSeries: 4}, nil, broken, of("a", "Upper", "a__b", "_a", "a-b"),
		of("b", `x{`, `x{k="v"`, `x{k='v'}`, `x{K="v"}`), of("c", "stuck", "stuck_total"), of("d", "z"), of("d", "z"),
		of("e", "a1", "a2", "a3", "a4", "a5"))
	for _, text := range []string{
		"object 0: it is nil", "object 1: panics", `"Upper"`, `"a__b"`, `"_a"`, `"a-b"`, `"x{"`, `"x{k=\"v\""`, `"x{k='v'}"`, `"x{K=\"v\"}"`,
		"would both be called backstay.k.stuck", `object 6: another object of the kind "k" has the name "d"`, "5 series",
	} {
		require.ErrorContains(t, err, text)
	}
	got, err := collect(t, reader)
	require.NoError(t, err)
	require.Empty(t, got, "nothing is registered")

	_, err = otelmetrics.Register(nil, otelmetrics.Config{})
	require.ErrorContains(t, err, "the provider is nil")
	_, err = otelmetrics.Register(provider, otelmetrics.Config{MaxSeries: -1})
	require.ErrorContains(t, err, "MaxSeries")
	var cfg otelmetrics.Config
	require.NoError(t, json.Unmarshal([]byte(`{"name":"x","max_series":5}`), &cfg))
	require.Equal(t, otelmetrics.Config{Name: "x", MaxSeries: 5}, cfg)
	require.Error(t, json.Unmarshal([]byte(`{"limit":5}`), &cfg))
}

func TestReadersMayCollectAtTheSameTimeAndWhileItIsClosed(t *testing.T) {
	first, second := sdk.NewManualReader(), sdk.NewManualReader()
	provider := sdk.NewMeterProvider(sdk.WithReader(first), sdk.WithReader(second))
	reg, err := otelmetrics.Register(provider, otelmetrics.Config{}, oneOfEach(t)...)
	require.NoError(t, err)
	var readers sync.WaitGroup
	for _, reader := range []sdk.Reader{first, second} {
		readers.Go(func() {
			for range 50 {
				_, err := collect(t, reader)
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	require.NoError(t, reg.Close())
	readers.Wait()
	require.NoError(t, provider.Shutdown(context.Background()))
}

func TestWithoutAnSDKNothingIsAsked(t *testing.T) {
	reg, err := otelmetrics.Register(noop.NewMeterProvider(), otelmetrics.Config{}, oneOfEach(t)...)
	require.NoError(t, err)
	require.NoError(t, reg.Close())
}

func TestARegistrationIsAnObject(t *testing.T) {
	provider, reader := provide(t)
	first, err := otelmetrics.Register(provider, otelmetrics.Config{}, &thing{kind: "k", metrics: map[string]float64{"a": 1}})
	require.NoError(t, err)
	second, err := otelmetrics.Register(provider, otelmetrics.Config{}, first)
	require.NoError(t, err)
	got, err := collect(t, reader)
	require.NoError(t, err)
	require.InDelta(t, 1, got["gauge backstay.telemetry.series{backstay.name=telemetry}"], 0)
	require.NoError(t, first.Close())
	require.NoError(t, second.Close())
}
