package otelmetrics_test

import (
	"encoding/json"
	"flag"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	exporter "go.opentelemetry.io/otel/exporters/prometheus"
	sdk "go.opentelemetry.io/otel/sdk/metric"

	"github.com/backstay-go/backstay/backend/otel/otelmetrics"
)

var update = flag.Bool("update", false, "write dashboard.json anew")

// exported is the series that Prometheus gets of the objects, with their labels.
func exported(t *testing.T, objects []otelmetrics.Object) map[string][]string {
	t.Helper()
	registry := prometheus.NewRegistry()
	bridge, err := exporter.New(exporter.WithRegisterer(registry), exporter.WithoutScopeInfo(), exporter.WithoutTargetInfo())
	require.NoError(t, err)
	provider := sdk.NewMeterProvider(sdk.WithReader(bridge))
	reg, err := otelmetrics.Register(provider, otelmetrics.Config{}, objects...)
	require.NoError(t, err)
	families, err := registry.Gather()
	require.NoError(t, err)
	series := map[string][]string{}
	for _, f := range families {
		for _, label := range f.GetMetric()[0].GetLabel() {
			series[f.GetName()] = append(series[f.GetName()], label.GetName())
		}
	}
	require.NoError(t, reg.Close())
	require.NoError(t, provider.Shutdown(t.Context()))
	return series
}

func TestEveryMetricIsExportedUnderItsName(t *testing.T) {
	objects := oneOfEach(t)
	series := exported(t, objects)
	wanted := map[string]bool{}
	for _, o := range objects {
		kind, name, _ := o.Describe()
		require.NotEmpty(t, name, "a %s without a name", kind)
		for metric := range o.Metrics() {
			name, err := otelmetrics.SeriesName(kind, metric)
			require.NoError(t, err)
			require.Contains(t, series, name)
			wanted[name] = true
		}
	}
	require.Len(t, series, len(wanted))
	require.Greater(t, len(wanted), 120)
	require.Contains(t, series, "backstay_cache_load_time_seconds_total")
	require.Contains(t, series, "backstay_relay_oldest_age_seconds")
}

type dashboardFile struct {
	Panels []struct {
		Type    string
		Title   string
		Targets []struct{ Expr string }
		GridPos struct{ X, Y, W, H int }
	}
}

func TestTheDashboardIsUpToDate(t *testing.T) {
	made, err := otelmetrics.Dashboard("backstay", oneOfEach(t)...)
	require.NoError(t, err)
	if *update {
		require.NoError(t, os.WriteFile("dashboard.json", made, 0o644))
	}
	kept, err := os.ReadFile("dashboard.json")
	require.NoError(t, err)
	require.Equal(t, string(kept), string(made), "go test -run TestTheDashboardIsUpToDate -update ./backend/otel/otelmetrics writes it anew")
}

// selector finds the metrics of a query: what stands before a brace.
var selector = regexp.MustCompile(`([a-zA-Z_:][a-zA-Z0-9_:]*)\{`)

func TestEveryQueryOfTheDashboardNamesASeriesThatIsExported(t *testing.T) {
	kept, err := os.ReadFile("dashboard.json")
	require.NoError(t, err)
	var file dashboardFile
	require.NoError(t, json.Unmarshal(kept, &file))
	series := exported(t, oneOfEach(t))
	shown := map[string]bool{}
	taken := map[[2]int]bool{}
	for _, p := range file.Panels {
		for cell := range p.GridPos.W * p.GridPos.H {
			at := [2]int{p.GridPos.X + cell%p.GridPos.W, p.GridPos.Y + cell/p.GridPos.W}
			require.False(t, taken[at], "panel %s lies over another", p.Title)
			taken[at] = true
		}
		if p.Type == "row" {
			continue
		}
		require.Len(t, p.Targets, 1)
		query := p.Targets[0].Expr
		names := selector.FindAllStringSubmatch(query, -1)
		require.Len(t, names, 1, query)
		labels := series[names[0][1]]
		require.NotEmpty(t, labels, "%s: not exported", query)
		_, by, _ := strings.Cut(query, "by (")
		by, _, _ = strings.Cut(by, ")")
		for label := range strings.SplitSeq(by, ", ") {
			require.Contains(t, labels, label, query)
		}
		shown[names[0][1]] = true
	}
	require.Len(t, shown, len(series), "every series is shown")
}

func TestDashboardRefusesWhatRegisterRefuses(t *testing.T) {
	_, err := otelmetrics.Dashboard("x", nil, &thing{kind: "k", broken: true}, &thing{kind: "k", metrics: map[string]float64{"No": 1}})
	for _, text := range []string{"object 0 is nil", "object 1: panics", `"No"`} {
		require.ErrorContains(t, err, text)
	}
}
