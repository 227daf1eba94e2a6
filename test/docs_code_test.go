package test

import (
	"context"
	"errors"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/fallback"
	"github.com/backstay-go/backstay/hedge"
	"github.com/backstay-go/backstay/policyhttp"
	"github.com/backstay-go/backstay/ratelimit"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/timeout"
)

// TestTheDocsShowCompiledCode looks for every block of Go in the docs among the parts of this folder's docs*_code_test.go that are
// marked "docs:", and for every such part in the docs.
func TestTheDocsShowCompiledCode(t *testing.T) {
	pages, err := filepath.Glob("../docs/*.md")
	require.NoError(t, err)
	shown := map[string]string{} // where, by the code
	for _, page := range pages {
		data, err := os.ReadFile(page)
		require.NoError(t, err)
		for _, block := range between(string(data), "```go\n", "```") {
			shown[block] = filepath.Base(page)
		}
	}
	sources, err := filepath.Glob("docs*_code_test.go")
	require.NoError(t, err)
	compiled := map[string]bool{}
	for _, path := range sources {
		source, err := os.ReadFile(path)
		require.NoError(t, err)
		for _, part := range between(string(source), "\t// docs:\n", "\t// docs: end\n") {
			var block strings.Builder
			for line := range strings.Lines(part) {
				block.WriteString(strings.TrimPrefix(line, "\t"))
			}
			compiled[block.String()] = true
			require.Contains(t, shown, block.String(), "no page shows this part of %s", path)
		}
	}
	require.NotEmpty(t, shown)
	for block, page := range shown {
		require.True(t, compiled[block], "%s shows code that is in no docs*_code_test.go:\n%s", page, block)
	}
}

// between returns what stands between each begin and the end after it.
func between(text, begin, end string) (parts []string) {
	for {
		_, after, found := strings.Cut(text, begin)
		if !found {
			return parts
		}
		var part string
		part, text, _ = strings.Cut(after, end)
		parts = append(parts, part)
	}
}

// What the pages take as given.
type service struct{ err error }

func (s service) Charge(context.Context, string) (string, error) { return "charged", s.err }
func (s service) Fetch(context.Context, string) (string, error)  { return "fetched", s.err }
func (s service) Print(context.Context, string) (string, error)  { return "printed", s.err }

var errDown = errors.New("down")

func TestChargingAsTheDocsShow(t *testing.T) {
	ctx, bank, order := t.Context(), service{errDown}, "42"
	chargeLater := func(context.Context, string, error) (string, error) { return "later", nil }
	// docs:
	budget := retry.NewBudget(retry.BudgetConfig{Name: "bank"})
	charge := fallback.Wrap(fallback.New(fallback.Config{Name: "charge"}),
		backstay.Wrap(bank.Charge,
			timeout.New(timeout.Config{Name: "charge, total", After: 2 * time.Second}),
			retry.New(retry.Config{Name: "bank"}, retry.WithBudget(budget)),
			breaker.New(breaker.Config{Name: "bank"}),
			ratelimit.New(ratelimit.Config{Name: "bank", Rate: 50, MaxWait: 200 * time.Millisecond}),
			bulkhead.New(bulkhead.Config{Name: "bank", MaxConcurrent: 16, MaxQueue: 32, QueueTimeout: 100 * time.Millisecond}),
			timeout.New(timeout.Config{Name: "bank, one attempt", After: 300 * time.Millisecond}),
		),
		chargeLater,
	)
	receipt, err := charge(ctx, order)
	// docs: end
	require.NoError(t, err)
	require.Equal(t, "later", receipt)
}

func TestFetchingAsTheDocsShow(t *testing.T) {
	ctx, client, request := t.Context(), service{}, "example.org/page"
	hostOf := func(request string) string { host, _, _ := strings.Cut(request, "/"); return host }
	// docs:
	hosts := breaker.NewSet[string](breaker.SetConfig{Name: "hosts", MaxOpenRatio: 0.5})
	fetch := breaker.WrapBy(hosts, hostOf, client.Fetch)
	page, err := fetch(ctx, request)
	// docs: end
	require.NoError(t, err)
	require.Equal(t, "fetched", page)
	require.EqualValues(t, 1, hosts.Get("example.org").Stats().Successes)
}

func TestPrintingAsTheDocsShow(t *testing.T) {
	ctx, printer, order := t.Context(), service{}, "42"
	// docs:
	slots := bulkhead.New(bulkhead.Config{Name: "printer", MaxConcurrent: 4})
	limit := timeout.New(timeout.Config{Name: "printer", After: 2 * time.Second})
	printLabel := timeout.Abandon(limit, backstay.Wrap(printer.Print, slots))
	label, err := printLabel(ctx, order)
	// docs: end
	require.NoError(t, err)
	require.Equal(t, "printed", label)
}

func TestHedgingAsTheDocsShow(t *testing.T) {
	fetchStock, slots := service{}.Fetch, bulkhead.New(bulkhead.Config{})
	// docs:
	h := hedge.New(hedge.Config{Name: "stock", After: 50 * time.Millisecond, Quantile: 0.95})
	attempt := timeout.New(timeout.Config{Name: "stock, one attempt", After: 500 * time.Millisecond})
	inner := hedge.Wrap(h, backstay.Wrap(fetchStock, slots, attempt), nil)
	stock := backstay.Wrap(inner, breaker.New(breaker.Config{Name: "stock"}))
	// docs: end
	answer, err := stock(t.Context(), "sku")
	require.NoError(t, err)
	require.Equal(t, "fetched", answer)
}

func TestFallingBackAsTheDocsShow(t *testing.T) {
	ctx, sku, fromSupplier := t.Context(), "sku", service{errDown}.Fetch
	isOutage := func(err error) bool { return errors.Is(err, errDown) }
	fromCache := func(context.Context, string, error) (string, error) { return "", errDown }
	listPrice := func(context.Context, string, error) (string, error) { return "9.90", nil }
	// docs:
	price := fallback.Wrap(fallback.New(fallback.Config{Name: "price"}), fromSupplier,
		fallback.Only(isOutage, fromCache),
		listPrice)
	ctx, seen := fallback.Observe(ctx)
	answer, err := price(ctx, sku)
	if err == nil && seen.Degraded() {
		log.Print("not today's price: ", seen.Cause())
	}
	// docs: end
	require.NoError(t, err)
	require.Equal(t, "9.90", answer)
	require.Equal(t, errDown, seen.Cause())
}

func TestAskingForRejectionsAsTheDocsShow(t *testing.T) {
	full := bulkhead.New(bulkhead.Config{MaxConcurrent: 1})
	permit, err := full.Acquire(t.Context())
	require.NoError(t, err)
	defer permit.Abort()
	order, queued := "42", ""
	queueForLater := func(order string) error { queued = order; return nil }
	require.Equal(t, errDown, orQueue(errDown, order, queueForLater))
	require.Empty(t, queued)
	rejected := full.Do(t.Context(), func(context.Context) error { return nil })
	require.NoError(t, orQueue(rejected, order, queueForLater))
	require.Equal(t, order, queued)
}

func orQueue(err error, order string, queueForLater func(string) error) error {
	// docs:
	if r, ok := err.(interface{ Rejected() bool }); ok && r.Rejected() {
		return queueForLater(order) // certainly not executed
	}
	// docs: end
	return err
}

func TestClientsAndServersAsTheDocsShow(t *testing.T) {
	total, attempt := timeout.New(timeout.Config{}), timeout.New(timeout.Config{})
	retrier, slots := retry.New(retry.Config{}), bulkhead.New(bulkhead.Config{})
	limiter, mux := ratelimit.New(ratelimit.Config{}), http.NewServeMux()
	// docs:
	breakers := breaker.NewSet[string](breaker.SetConfig{Name: "hosts"})
	client := &http.Client{Transport: policyhttp.Transport(nil, total, retrier, policyhttp.PerHost(breakers), slots, attempt)}
	server := &http.Server{Handler: policyhttp.Handler(mux, limiter, slots, total)}
	// docs: end
	require.NotNil(t, client.Transport)
	require.NotNil(t, server.Handler)
}
