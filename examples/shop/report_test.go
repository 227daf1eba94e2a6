package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func exampleResult() result {
	return result{
		Orders: 2000, Accepted: 1999, Confirmed: 1711, Cancelled: 288, ChargedPence: 74566321, ConfirmedPence: 70011099,
		RefundedPence: 4555222, UnitsReserved: 412345, UnitsShipped: 412345, EventsPublished: 13210, EventsHandled: 17209,
		DuplicatesSuppressed: 431, Retries: 388, BreakerOpened: 7, Fallbacks: 92, Redeliveries: 431, Compensations: 288,
		LostReplies: 61, CatalogueHits: 8211, CatalogueLoads: 902, CatalogueRefreshes: 611, CatalogueStaleServed: 127,
		CatalogueNegativeHits: 180, Seconds: 34.2468, OK: true,
		Invariants: []invariant{
			{ordersSettled, true, "1,999 orders and 41 cancellations accepted, each carried through"},
			{moneyAgrees, true, "£745,663.21 charged - £45,552.22 refunded = £700,110.99 confirmed"},
			{enoughConfirmed, true, "1,711 of 1,999 accepted orders (85.5 %)"},
		},
	}
}

func exampleDetails() details {
	return details{
		Source:  "2,000 orders replayed from online-retail.csv.gz, with faults (seed 1)",
		Faults:  []figure{{"requests", 2601}, {"slow", 104}, {"outages", 5}},
		Skipped: map[string]int{"no product": 312, "nothing sold": 77, "price is 0": 77},
		Refused: map[string]int{"no earlier order of this customer": 63},
		Notes:   []string{"The data is kept in shop-data."},
	}
}

func TestReportReadsAsItShould(t *testing.T) {
	golden, err := os.ReadFile("testdata/report.txt")
	require.NoError(t, err)
	var out bytes.Buffer
	require.NoError(t, writeReport(&out, exampleResult(), exampleDetails()))
	require.Equal(t, string(golden), out.String())
	require.NotContains(t, out.String(), "\x1b")
	for line := range strings.Lines(out.String()) {
		require.Equal(t, strings.TrimRight(line, " \n")+"\n", line)
	}
}

func TestReportSaysWhatFailed(t *testing.T) {
	r := exampleResult()
	r.OK = false
	r.Invariants[1] = invariant{moneyAgrees, false, "order g1-000004 was charged 2 times"}
	var out bytes.Buffer
	require.NoError(t, writeReport(&out, r, details{Source: "1 order"}))
	require.Contains(t, out.String(), "\n  FAILED  money agrees to the penny     order g1-000004 was charged 2 times\n")
	require.Contains(t, out.String(), "\n1 of 3 invariants FAILED after 34.2 s.\n")
	require.NotContains(t, out.String(), "hold")
}

func TestOnlyTheProofIsColoured(t *testing.T) {
	var p page
	p.proof([]invariant{{"a", true, "x"}, {"b", false, "y"}}, true)
	require.Equal(t, "\nThe proof\n"+
		"  \x1b[32mok    \x1b[0m  a                             x\n"+
		"  \x1b[1;31mFAILED\x1b[0m  b                             y\n", p.String())
}

// The names and their order are a promise to those who read the JSON.
func TestJSONHasTheFieldsInOrder(t *testing.T) {
	var out bytes.Buffer
	r := exampleResult()
	r.Invariants = r.Invariants[:1]
	require.NoError(t, writeJSON(&out, r))
	require.Equal(t, `{"orders":2000,"accepted":1999,"confirmed":1711,"cancelled":288,"unfinished":0,"charged_pence":74566321,`+
		`"confirmed_pence":70011099,"refunded_pence":4555222,"units_reserved":412345,"units_shipped":412345,"events_published":13210,`+
		`"events_handled":17209,"duplicates_suppressed":431,"dead_letters":0,"retries":388,"breaker_opened":7,"fallbacks":92,`+
		`"redeliveries":431,"compensations":288,"lost_replies":61,"catalogue_hits":8211,"catalogue_loads":902,"catalogue_refreshes":611,`+
		`"catalogue_stale_served":127,"catalogue_negative_hits":180,"seconds":34.247,"invariants":[{"name":"accepted orders are settled",`+
		`"ok":true,"detail":"1,999 orders and 41 cancellations accepted, each carried through"}],"ok":true}`+"\n", out.String())
	require.True(t, json.Valid(out.Bytes()))

	out.Reset()
	require.NoError(t, writeJSON(&out, result{}))
	require.Contains(t, out.String(), `"invariants":[],"ok":false}`)
}

func TestAFailedWriteIsReported(t *testing.T) {
	full := brokenWriter{}
	require.ErrorIs(t, writeReport(full, result{}, details{}), errDiskFull)
	require.ErrorIs(t, writeJSON(full, result{}), errDiskFull)
}

var errDiskFull = errors.New("disk full")

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errDiskFull }

func TestNumbersAreGrouped(t *testing.T) {
	for n, want := range map[int]string{
		0: "0", 7: "7", 999: "999", 1000: "1,000", -1: "-1", -999: "-999", -1000: "-1,000", 123456: "123,456",
		1234567: "1,234,567", math.MaxInt64: "9,223,372,036,854,775,807",
	} {
		require.Equal(t, want, grouped(n))
	}
	for pence, want := range map[int]string{
		0: "£0.00", 5: "£0.05", 99: "£0.99", 100: "£1.00", 123456: "£1,234.56", -5: "-£0.05", -123456: "-£1,234.56",
	} {
		require.Equal(t, want, pounds(pence))
	}
	require.Equal(t, "-", percentage(0, 0))
	require.Equal(t, "99.9 %", percentage(1999, 2000))
	require.Equal(t, "100.0 %", percentage(2000, 2000))
}
