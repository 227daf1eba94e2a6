package otelmetrics_test

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"

	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/backstay-go/backstay/backend/otel/otelmetrics"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/retry"
)

// show collects once, as an exporter does every so often, and prints what is not zero.
func show(reader sdk.Reader) {
	var all metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &all); err != nil {
		panic(err)
	}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			if sum, ok := m.Data.(metricdata.Sum[float64]); ok && sum.DataPoints[0].Value > 0 {
				name, _ := sum.DataPoints[0].Attributes.Value(otelmetrics.NameKey)
				fmt.Println(m.Name, name.AsString(), sum.DataPoints[0].Value)
			}
		}
	}
}

func Example() {
	reader := sdk.NewManualReader() // a service has an exporter here
	provider := sdk.NewMeterProvider(sdk.WithReader(reader))

	bank := breaker.New(breaker.Config{Name: "bank"})
	retrier := retry.New(retry.Config{Name: "orders"})
	reg, err := otelmetrics.Register(provider, otelmetrics.Config{}, bank, retrier)
	if err != nil {
		panic(err)
	}
	defer reg.Close()

	_ = bank.Do(context.Background(), func(context.Context) error { return nil })
	show(reader)
	// Output: backstay.breaker.successes bank 1
}

// mailbox is an object of the service's own.
type mailbox struct{ sent float64 }

func (m *mailbox) Describe() (kind, name string, config any) { return "mailbox", "invoices", nil }

func (m *mailbox) Metrics() iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) {
		_ = yield(`sent_total{format="pdf"}`, m.sent)
	}
}

// Whatever has Describe and Metrics is exported, a service's own too.
func ExampleRegister() {
	reader := sdk.NewManualReader()
	reg, err := otelmetrics.Register(sdk.NewMeterProvider(sdk.WithReader(reader)), otelmetrics.Config{}, &mailbox{sent: 12})
	if err != nil {
		panic(err)
	}
	defer reg.Close()
	show(reader)
	// Output: backstay.mailbox.sent invoices 12
}

// The dashboard has a panel for each metric.
func ExampleDashboard() {
	file, err := otelmetrics.Dashboard("Invoices", &mailbox{})
	if err != nil {
		panic(err)
	}
	var dashboard struct {
		Panels []struct{ Targets []struct{ Expr string } }
	}
	if err := json.Unmarshal(file, &dashboard); err != nil {
		panic(err)
	}
	fmt.Println(dashboard.Panels[1].Targets[0].Expr)
	// Output: sum by (backstay_name, format) (rate(backstay_mailbox_sent_total{backstay_name=~"$name"}[$__rate_interval]))
}

func ExampleSeriesName() {
	name, err := otelmetrics.SeriesName("retry budget", "refused_total")
	fmt.Println(name, err)
	// Output: backstay_retry_budget_refused_total <nil>
}
