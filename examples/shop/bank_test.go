package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/sqlite"
)

// outsideDB is a database of its own with the given tables.
func outsideDB(t *testing.T, schema string) *sql.DB {
	t.Helper()
	db, err := sqlite.Open(filepath.Join(t.TempDir(), "test.db"), sqlite.Config{Synchronous: "normal"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	_, err = db.Exec(schema)
	require.NoError(t, err)
	return db
}

type bankUnderTest struct {
	*bank
	t    *testing.T
	db   *sql.DB
	url  string
	http *http.Client
}

func startBank(t *testing.T, schedule *faults) *bankUnderTest {
	t.Helper()
	db := outsideDB(t, bankSchema)
	b := newBank(db, onSQLite, schedule)
	server := httptest.NewServer(b)
	t.Cleanup(server.Close)
	return &bankUnderTest{bank: b, t: t, db: db, url: server.URL, http: server.Client()}
}

// dealing is a schedule that plays the given cards and no outage.
func dealing(cards ...fault) *faults {
	f := newFaults(1, true)
	f.deck, f.outageAt = cards, 1<<30
	return f
}

func (b *bankUnderTest) send(method, path, body string) (int, bankAnswer, error) {
	req, err := http.NewRequest(method, b.url+path, strings.NewReader(body))
	require.NoError(b.t, err)
	resp, err := b.http.Do(req)
	if err != nil {
		return 0, bankAnswer{}, err
	}
	defer resp.Body.Close()
	var said bankAnswer
	require.NoError(b.t, json.NewDecoder(resp.Body).Decode(&said))
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, said, nil
}

// net is charged minus refunded.
func (b *bankUnderTest) net() (pence int) {
	err := b.db.QueryRow(`SELECT (SELECT coalesce(sum(amount_pence), 0) FROM charges WHERE outcome = 'charged')
		- (SELECT coalesce(sum(amount_pence), 0) FROM refunds)`).Scan(&pence)
	require.NoError(b.t, err)
	return pence
}

type bankStep struct {
	method, path, body string
	code               int
	outcome            string
	net                int
}

func TestBankIsIdempotentByKey(t *testing.T) {
	const charge, refund = `{"order_id":"o1","amount_pence":700}`, `{"order_id":"o1","charge_key":"k1","amount_pence":200}`
	charged := bankStep{"PUT", "/charges/k1", charge, 200, "charged", 700}
	for name, steps := range map[string][]bankStep{
		"charge": {
			charged, charged,
			{"PUT", "/charges/k1", `{"order_id":"o1","amount_pence":701}`, 422, "", 700},
			{"PUT", "/charges/k1", `{"order_id":"o2","amount_pence":700}`, 422, "", 700},
		},
		"void gives all back once": {
			charged,
			{"POST", "/charges/k1/void", "", 200, "voided", 0},
			{"POST", "/charges/k1/void", "", 200, "voided", 0},
			{"PUT", "/charges/k1", charge, 409, "voided", 0},
			{"PUT", "/refunds/r1", refund, 409, "", 0},
		},
		"void refuses the late charge": {
			{"POST", "/charges/k1/void", "", 200, "voided", 0},
			{"PUT", "/charges/k1", charge, 409, "voided", 0},
			{"POST", "/charges/k1/void", "", 200, "voided", 0},
			{"PUT", "/charges/k1", charge, 409, "voided", 0},
		},
		"refund": {
			charged,
			{"PUT", "/refunds/r1", refund, 200, "refunded", 500},
			{"PUT", "/refunds/r1", refund, 200, "refunded", 500},
			{"PUT", "/refunds/r1", `{"order_id":"o1","charge_key":"k1","amount_pence":201}`, 422, "", 500},
			{"PUT", "/refunds/r2", `{"order_id":"o1","charge_key":"k1","amount_pence":501}`, 409, "", 500},
			{"PUT", "/refunds/r2", `{"order_id":"o2","charge_key":"k1","amount_pence":100}`, 409, "", 500},
			{"PUT", "/refunds/r2", `{"order_id":"o1","charge_key":"k2","amount_pence":100}`, 409, "", 500},
			{"POST", "/charges/k1/void", "", 200, "voided", 0},
			{"PUT", "/refunds/r1", refund, 200, "refunded", 0},
		},
		"refund of everything": {
			charged,
			{"PUT", "/refunds/r1", `{"order_id":"o1","charge_key":"k1","amount_pence":700}`, 200, "refunded", 0},
			{"PUT", "/refunds/r2", `{"order_id":"o1","charge_key":"k1","amount_pence":1}`, 409, "", 0},
			{"POST", "/charges/k1/void", "", 200, "voided", 0},
			{"PUT", "/charges/k1", charge, 409, "voided", 0},
		},
		"bad input": {
			{"PUT", "/charges/k1", `{"order_id":"o1","amount_pence":700,"tip":1}`, 400, "", 0},
			{"PUT", "/charges/k1", charge + charge, 400, "", 0},
			{"PUT", "/charges/k1", charge + "}", 400, "", 0},
			{"PUT", "/charges/k1", "", 400, "", 0},
			{"PUT", "/charges/k1", `{"order_id":"` + strings.Repeat("x", bankBodyLimit) + `"}`, 413, "", 0},
			{"PUT", "/charges/k1", `{"order_id":"","amount_pence":700}`, 422, "", 0},
			{"PUT", "/charges/k1", `{"order_id":"o1","amount_pence":0}`, 422, "", 0},
			charged,
			{"PUT", "/refunds/r1", `{"order_id":"o1","charge_key":"k1","amount_pence":-1}`, 422, "", 700},
			{"PUT", "/refunds/void%2Fk1", refund, 422, "", 700},
			{"PUT", "/refunds/r1", refund, 200, "refunded", 500},
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := startBank(t, newFaults(1, false))
			for i, s := range steps {
				code, said, err := b.send(s.method, s.path, s.body)
				require.NoError(t, err)
				require.Equal(t, s.code, code, "step %d: %s", i, said.Error)
				require.Equal(t, s.outcome, said.Outcome, "step %d", i)
				require.Equal(t, s.outcome == "", said.Error != "", "step %d", i)
				require.Equal(t, s.net, b.net(), "step %d", i)
			}
		})
	}
}

func TestBankChargesOnceHoweverManyAskAtOnce(t *testing.T) {
	b := startBank(t, newFaults(1, false))
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			code, _, err := b.send("PUT", "/charges/k1", `{"order_id":"o1","amount_pence":700}`)
			if err != nil || code != 200 {
				t.Errorf("code %d, error %v", code, err)
			}
		})
	}
	all.Wait()
	require.Equal(t, 700, b.net())
	require.Equal(t, bankStats{served: 20}, b.stats())
}

func TestBankDeclinesACardForGood(t *testing.T) {
	schedule := dealing(noFault, noFault, noFault, noFault)
	bad := ""
	for i := 0; bad == ""; i++ {
		if id := fmt.Sprint(i); schedule.declines(id) {
			bad = id
		}
	}
	b := startBank(t, schedule)
	for _, s := range []bankStep{
		{"PUT", "/charges/k1", "", 402, "declined", 0},
		{"PUT", "/charges/k1", "", 402, "declined", 0},
		{"POST", "/charges/k1/void", "", 200, "voided", 0},
		{"PUT", "/charges/k2", "", 402, "declined", 0},
	} {
		code, said, err := b.send(s.method, s.path, `{"order_id":"`+bad+`","amount_pence":700}`)
		require.NoError(t, err)
		require.Equal(t, s.code, code)
		require.Equal(t, s.outcome, said.Outcome)
		require.Zero(t, b.net())
	}
	require.Equal(t, bankStats{served: 4, declined: 2}, b.stats())
	require.False(t, newFaults(1, false).declines(bad), "without chaos every card is good")
}

func TestBankLostReplyTookEffect(t *testing.T) {
	b := startBank(t, dealing(lostReplyFault, noFault, lostReplyFault, lostReplyFault, lostReplyFault))
	order := `{"order_id":"fine","amount_pence":700}`
	_, _, err := b.send("PUT", "/charges/k1", order)
	require.Error(t, err)
	require.Equal(t, 700, b.net(), "committed although nobody heard of it")
	code, _, err := b.send("PUT", "/charges/k1", order)
	require.NoError(t, err)
	require.Equal(t, 200, code)
	_, _, err = b.send("PUT", "/charges/k1", order)
	require.Error(t, err, "a lost reply of which the books know nothing new")
	_, _, err = b.send("PUT", "/refunds/r1", `{"order_id":"fine","charge_key":"k1","amount_pence":200}`)
	require.Error(t, err)
	_, _, err = b.send("POST", "/charges/k1/void", "")
	require.Error(t, err)
	require.Zero(t, b.net())
	require.Equal(t, bankStats{served: 1, resets: 1, lostReplies: 3}, b.stats())
	var remembered int
	require.NoError(t, b.db.QueryRow(`SELECT (SELECT sum(lost_replies) FROM charges) + (SELECT sum(lost_replies) FROM refunds)`).Scan(&remembered))
	require.Equal(t, 3, remembered)
}

func TestBankFaultsBeforeTheEffectHaveNone(t *testing.T) {
	b := startBank(t, dealing(resetFault, unavailableFault, noFault))
	order := `{"order_id":"fine","amount_pence":700}`
	_, _, err := b.send("PUT", "/charges/k1", order)
	require.Error(t, err)
	req, err := http.NewRequest("PUT", b.url+"/charges/k1", strings.NewReader(order))
	require.NoError(t, err)
	resp, err := b.http.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, 503, resp.StatusCode)
	require.Equal(t, "1", resp.Header.Get("Retry-After"))
	require.Zero(t, b.net())
	code, _, err := b.send("PUT", "/charges/k1", order)
	require.NoError(t, err)
	require.Equal(t, 200, code)
	require.Equal(t, bankStats{served: 1, resets: 1, unavailable: 1}, b.stats())
}

func TestBankSlowRequestLetsGoOfAClientThatLeaves(t *testing.T) {
	db := outsideDB(t, bankSchema)
	b := newBank(db, onSQLite, dealing(slowFault))
	ctx, leave := context.WithCancel(t.Context())
	arrived, left := make(chan struct{}), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(left)
		close(arrived)
		b.ServeHTTP(w, r)
	}))
	defer server.Close()
	go func() { <-arrived; leave() }()
	req, err := http.NewRequestWithContext(ctx, "PUT", server.URL+"/charges/k1", strings.NewReader(`{"order_id":"fine","amount_pence":700}`))
	require.NoError(t, err)
	_, err = server.Client().Do(req) //nolint:bodyclose // there is none
	require.ErrorIs(t, err, context.Canceled)
	<-left
	var charges int
	require.NoError(t, db.QueryRow(`SELECT count(*) FROM charges`).Scan(&charges))
	require.Zero(t, charges)
}

func TestBankSlowRequestTakesItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBank(nil, onSQLite, newFaults(1, true))
		r := httptest.NewRequest("PUT", "/charges/k1", nil)
		start := time.Now()
		require.True(t, b.misbehave(httptest.NewRecorder(), r, slowFault, 432*time.Millisecond))
		require.Equal(t, 432*time.Millisecond, time.Since(start))

		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		require.False(t, b.misbehave(httptest.NewRecorder(), r.WithContext(ctx), slowFault, 432*time.Millisecond))
		require.Equal(t, 532*time.Millisecond, time.Since(start), "no longer than the client stays")
	})
}
