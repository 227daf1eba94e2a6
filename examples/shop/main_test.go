package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/backstay-go/backstay/backend/sqlite"
)

// asShop makes this test binary behave as the command, so that a test can kill it.
const asShop = "SHOP_TEST_RUN_AS_SHOP"

func TestMain(m *testing.M) {
	if os.Getenv(asShop) != "" || len(os.Args) > 1 && os.Args[1] == roleFlag {
		main()
	}
	// When there is no server, rueidis leaves a goroutine asleep for a second.
	// A proxy that is stopped while data is under way leaves goroutines of its own behind.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/rueidis.(*call).DelayDo.func1"),
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2/toxics.(*ToxicStub).Run"),
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2.(*ToxicLink).read"),
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2.(*ToxicLink).write"))
}

// Limits of waiting for a condition.
const (
	wait = 5 * time.Minute
	tick = 20 * time.Millisecond
)

// runJSON runs the shop in this process and returns its result and exit status.
func runJSON(ctx context.Context, t *testing.T, args ...string) (result, int) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := run(ctx, append(args, "-json"), &stdout, &stderr)
	return resultIn(t, &stdout, &stderr), code
}

func resultIn(t *testing.T, stdout, stderr *bytes.Buffer) (r result) {
	t.Helper()
	require.NoError(t, json.Unmarshal(stdout.Bytes(), &r), "stdout: %s\nstderr: %s", stdout, stderr)
	return r
}

func requireProof(t *testing.T, r result) {
	t.Helper()
	require.Len(t, r.Invariants, 9)
	for _, i := range r.Invariants {
		require.True(t, i.OK, "%s: %s", i.Name, i.Detail)
	}
	require.True(t, r.OK)
	require.Zero(t, r.Unfinished)
	require.Zero(t, r.DeadLetters)
}

func TestADefaultRunMeetsEveryFaultAndHolds(t *testing.T) {
	r, code := runJSON(t.Context(), t)
	requireProof(t, r)
	require.Zero(t, code)
	require.Equal(t, 200, r.Orders)
	require.Positive(t, r.Retries)
	require.Positive(t, r.BreakerOpened)
	require.Positive(t, r.Fallbacks)
	require.Positive(t, r.Redeliveries)
	require.Positive(t, r.DuplicatesSuppressed)
	require.Positive(t, r.Compensations)
	require.Positive(t, r.LostReplies)
	require.Positive(t, r.CatalogueHits)
	require.Positive(t, r.CatalogueRefreshes)
	require.Positive(t, r.CatalogueStaleServed)
	require.Positive(t, r.CatalogueNegativeHits)
	require.Less(t, r.CatalogueLoads, r.CatalogueHits)
}

func TestTheReportSaysThatTheInvariantsHold(t *testing.T) {
	var stdout, stderr bytes.Buffer
	require.Zero(t, run(t.Context(), []string{"-orders", "5", "-rate", "200", "-chaos=false"}, &stdout, &stderr), stderr.String())
	require.Contains(t, stdout.String(), "All 9 invariants hold")
}

// The proof has to hold however slow the machine is. Where the machine itself is a fault, because an attempt takes longer than its
// half second, something may be repeated, and the run is made again with less to do at a time.
func TestWithoutChaosNothingIsRepeated(t *testing.T) {
	for _, rate := range []string{"200", "20", "5", "2", "1", "1"} {
		r, _ := runJSON(t.Context(), t, "-orders", "40", "-rate", rate, "-chaos=false")
		requireProof(t, r)
		if r.LostReplies+r.BreakerOpened+r.Fallbacks+r.CatalogueStaleServed == 0 {
			return
		}
		t.Logf("at %s orders a second: %d lost replies, %d times open, %d fallbacks, %d stale pages",
			rate, r.LostReplies, r.BreakerOpened, r.Fallbacks, r.CatalogueStaleServed)
	}
	t.Error("something is repeated at every rate")
}

func TestWrongUsageIsStatus2WithWhatToDo(t *testing.T) {
	columns := "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
	file := func(text string) string {
		path := filepath.Join(t.TempDir(), "replay.csv")
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"unknown flag":      {[]string{"-speed", "3"}, "-speed"},
		"argument":          {[]string{"now"}, `"now"`},
		"no orders":         {[]string{"-orders", "0"}, "-orders is 0"},
		"rate zero":         {[]string{"-rate", "0"}, "-rate is 0"},
		"rate not a number": {[]string{"-rate", "NaN"}, "-rate is NaN"},
		"addr alone":        {[]string{"-addr", "127.0.0.1:1"}, "-serve"},
		"addr of no use":    {[]string{"-serve", "-addr", "256.0.0.1:80"}, "-addr"},
		"replay missing":    {[]string{"-replay", filepath.Join(t.TempDir(), "none.csv")}, "none.csv"},
		"other columns":     {[]string{"-replay", file("Invoice,Code\n1,2\n")}, "line 1"},
		"a line too short":  {[]string{"-replay", file(columns + "536365,85123A\n")}, "line 2"},
		"truncated gzip":    {[]string{"-replay", file("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03")}, "line 1"},
		"data is a file":    {[]string{"-data", file("")}, "-data"},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			require.Equal(t, 2, run(t.Context(), c.args, &stdout, &stderr))
			require.Contains(t, stderr.String(), c.says)
			require.Empty(t, stdout.String())
		})
	}
}

func TestOneFolderServesOneShop(t *testing.T) {
	dir := t.TempDir()
	first, err := openShop(t.Context(), settings{data: dir, addr: anyPort}, nil, io.Discard)
	require.NoError(t, err)
	var stdout, stderr bytes.Buffer
	require.Equal(t, 2, run(t.Context(), []string{"-data", dir, "-orders", "1"}, &stdout, &stderr))
	require.Contains(t, stderr.String(), "another shop is at work in "+dir)
	require.NoError(t, first.close())
}

func TestAnInterruptDrainsAndReports(t *testing.T) {
	dir := t.TempDir()
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	var stdout, stderr bytes.Buffer
	done := make(chan int, 1)
	go func() {
		done <- run(ctx, []string{"-data", dir, "-orders", "2000", "-rate", "50", "-json"}, &stdout, &stderr)
	}()
	awaitCount(t, filepath.Join(dir, "client.db"), `SELECT count(*) FROM answers`, 20)
	interrupt()
	require.Zero(t, <-done, &stderr)
	r := resultIn(t, &stdout, &stderr)
	requireProof(t, r)
	require.GreaterOrEqual(t, r.Orders, 20)
	require.Less(t, r.Orders, 2000)
}

// awaitCount waits until the query on another process's or goroutine's database, which may not exist yet, counts to n.
func awaitCount(t *testing.T, path, query string, n int) {
	t.Helper()
	require.Eventually(t, func() bool { return countIn(t, path, query) >= n }, wait, tick)
}

// countIn is 0 while there is no such table.
func countIn(t *testing.T, path, query string) (n int) {
	t.Helper()
	if _, err := os.Stat(path); err != nil {
		return 0
	}
	db, err := sqlite.Open(path, sqlite.Config{})
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	if err := db.QueryRowContext(t.Context(), query).Scan(&n); err != nil {
		return 0
	}
	return n
}

const unfinishedSagas = `SELECT count(*) FROM backstay_sagas WHERE status IN ('running', 'compensating')`

// Again and again the shop dies by SIGKILL at a random moment under load, with sagas unfinished, and is started again.
func TestAKilledShopLosesNothing(t *testing.T) {
	kills, orders := 5, 350
	if os.Getenv("BACKSTAY_LONG") == "1" {
		kills, orders = 30, 2000
	}
	requireSurvival(t, kills, orders, func(t *testing.T) keptShop {
		dir := t.TempDir()
		return keptShop{
			args:  []string{"-data", dir},
			count: func(query string) int { return countIn(t, filepath.Join(dir, "orders.db"), query) },
		}
	})
}

// A keptShop is one that is started again on the same data.
type keptShop struct {
	args  []string
	count func(query string) int // in the database of the orders; 0 while there is no such table
}

func requireSurvival(t *testing.T, kills, orders int, shop func(t *testing.T) keptShop) {
	t.Helper()
	for !survivesKills(t, shop(t), kills, orders) { // a busy machine kills so late that the orders do not suffice
		orders *= 2
		require.Less(t, orders, 100_000, "the kills hit no unfinished sagas")
	}
}

// survivesKills reports whether the orders were enough for that many kills.
func survivesKills(t *testing.T, shop keptShop, kills, orders int) bool {
	t.Helper()
	args := append(slices.Clone(shop.args), "-orders", strconv.Itoa(orders), "-rate", "40", "-json")
	for done := 0; done < kills; {
		// A moment is a number of orders, so that it depends on the load and not on the speed of the machine.
		if !killAfter(t, shop, shop.count(`SELECT count(*) FROM orders`)+10+rand.IntN(35), args) {
			return false
		}
		unfinished := shop.count(unfinishedSagas)
		t.Logf("a kill with %d sagas unfinished", unfinished)
		if unfinished > 0 { // the last one may have ended between the look and the kill
			done++
		}
	}
	stdout, stderr := new(bytes.Buffer), new(bytes.Buffer)
	last := command(t, stdout, stderr, args)
	require.NoError(t, last.Run(), "stdout: %s\nstderr: %s", stdout, stderr)
	r := resultIn(t, stdout, stderr)
	requireProof(t, r)
	require.Equal(t, orders, r.Orders)
	return true
}

// killAfter starts a shop and kills it once there are n orders and a saga is unfinished. It reports false where the shop has
// ended before by itself.
func killAfter(t *testing.T, shop keptShop, n int, args []string) bool {
	t.Helper()
	stderr := new(bytes.Buffer)
	cmd := command(t, new(bytes.Buffer), stderr, args)
	require.NoError(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	poll := time.NewTicker(tick)
	defer poll.Stop()
	for shop.count(`SELECT count(*) FROM orders`) < n || shop.count(unfinishedSagas) == 0 {
		select {
		case <-poll.C:
		case err := <-ended:
			require.NoError(t, err, stderr)
			return false
		}
	}
	_ = cmd.Process.Kill() // it may have ended by itself
	if err := <-ended; err != nil {
		var exit *exec.ExitError
		require.ErrorAs(t, err, &exit, "killed")
	}
	return true
}

func command(t *testing.T, stdout, stderr *bytes.Buffer, args []string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), asShop+"=1")
	cmd.Stdout, cmd.Stderr = stdout, stderr
	return cmd
}

// The real invoices, when they are there.
func TestARealReplayHolds(t *testing.T) {
	const path = "../../../shared/data/online-retail.csv.gz"
	if _, err := os.Stat(path); err != nil {
		t.Skipf("the Online Retail data set is not at %s: put it there to run this test", path)
	}
	orders, rate := 300, "50"
	if raceDetector {
		orders, rate = 100, "5" // what two cores bear
	}
	r, code := runJSON(t.Context(), t, "-replay", path, "-orders", strconv.Itoa(orders), "-rate", rate)
	requireProof(t, r)
	require.Zero(t, code)
	require.Equal(t, orders, r.Orders)
}

func TestAServingShopTakesOrdersFromOutside(t *testing.T) {
	dir := t.TempDir()
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	stderr := newLines()
	done := make(chan int, 1)
	var stdout bytes.Buffer
	go func() {
		done <- run(ctx, []string{"-serve", "-addr", "127.0.0.1:0", "-orders", "20", "-rate", "200", "-data", dir}, &stdout, stderr)
	}()
	base, _, _ := strings.Cut(stderr.await("is open at "), " ")
	sku := skuIn(t, filepath.Join(dir, "inventory.db"))
	code, body := send(t, "POST", base+"/api/orders", `{"id":"mine","customer":"me","country":"here","lines":[{"sku":"`+sku+`","qty":1,"price_pence":100}]}`)
	require.Equal(t, 202, code, body)
	awaitCount(t, filepath.Join(dir, "client.db"), `SELECT count(*) FROM answers WHERE kind = 'order'`, 20)
	requireConsole(t, base)
	interrupt()
	require.Zero(t, <-done, &stdout)
	require.Equal(t, 1, countIn(t, filepath.Join(dir, "orders.db"), `SELECT count(*) FROM orders WHERE id = 'mine' AND status IN ('confirmed', 'cancelled')`))
}

// requireConsole requires that the shop shows what it does, and leaves a viewer behind whom the shop must not wait for.
func requireConsole(t *testing.T, base string) {
	t.Helper()
	code, page := send(t, "GET", base+consolePath, "")
	require.Equal(t, 200, code)
	require.Contains(t, page, "<!DOCTYPE html>")
	code, body := send(t, "GET", base+consolePath+"api", "")
	require.Equal(t, 200, code)
	var now struct {
		Objects []struct {
			Panel, Kind, Name string
			Metrics           map[string]*float64
		}
	}
	require.NoError(t, json.Unmarshal([]byte(body), &now))
	panels, busy := map[string]int{}, 0.0
	for _, o := range now.Objects {
		panels[o.Panel]++
		if o.Kind == "cache" {
			busy = *o.Metrics["hits_total"] + *o.Metrics["misses_total"]
		}
	}
	for _, panel := range []string{"breakers", "retries", "limits", "caches", "subscriptions", "outboxes", "sagas"} {
		require.Positive(t, panels[panel], "%s: %v", panel, panels)
	}
	require.GreaterOrEqual(t, busy, 20.0, "each order asks the catalogue")
	for _, path := range []string{"/livez", "/readyz"} {
		code, body = send(t, "GET", base+path, "")
		require.Equal(t, 200, code, body)
	}
	viewer, err := http.Get(base + consolePath + "api/stream")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, viewer.Body.Close()) })
	_, err = viewer.Body.Read(make([]byte, 1))
	require.NoError(t, err)
}

func skuIn(t *testing.T, path string) (sku string) {
	t.Helper()
	db, err := sqlite.Open(path, sqlite.Config{})
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	require.NoError(t, db.QueryRowContext(t.Context(), `SELECT sku FROM products LIMIT 1`).Scan(&sku))
	return sku
}

// lines is a writer on which a test can wait for a line.
type lines struct {
	mu    sync.Mutex
	text  strings.Builder
	grown *sync.Cond
}

func newLines() *lines {
	l := &lines{}
	l.grown = sync.NewCond(&l.mu)
	return l
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.grown.Broadcast()
	return l.text.Write(b)
}

// all is what was written.
func (l *lines) all() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// await returns what follows the text, once it is there.
func (l *lines) await(text string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		if _, after, ok := strings.Cut(l.text.String(), text); ok {
			return after
		}
		l.grown.Wait()
	}
}
