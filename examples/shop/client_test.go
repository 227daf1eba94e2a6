package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A fakeShop answers in the client's own goroutine, so that a test's time is virtual.
type fakeShop struct {
	answer func(name string, nth int) (code int, body string) // to the nth POST of an order's id, or of "/id/cancellations"; code 0: the connection breaks

	mu    sync.Mutex
	posts []string // paths and when they came
	seen  map[string]int
	looks map[string]int
	start time.Time
}

func (s *fakeShop) RoundTrip(r *http.Request) (*http.Response, error) {
	s.mu.Lock()
	if r.Method == http.MethodGet {
		s.looks[r.URL.EscapedPath()]++
		s.mu.Unlock()
		return httptest.NewRecorder().Result(), nil
	}
	name := strings.TrimPrefix(r.URL.Path, "/api/orders")
	if name == "" {
		name = orderIn(r)
	}
	s.seen[name]++
	nth := s.seen[name]
	s.posts = append(s.posts, fmt.Sprintf("%s at %v", name, time.Since(s.start)))
	s.mu.Unlock()
	code, body := s.answer(name, nth)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	if code == 0 {
		return nil, errors.New("connection reset by peer")
	}
	w := httptest.NewRecorder()
	if wait, ok := strings.CutPrefix(body, "later "); ok {
		w.Header().Set("Retry-After", wait)
	}
	w.WriteHeader(code)
	_, _ = w.WriteString(`{"error":"` + body + `"}`)
	return w.Result(), nil
}

func orderIn(r *http.Request) string {
	var id string
	buf := make([]byte, 1<<10)
	n, _ := r.Body.Read(buf)
	_, _ = fmt.Sscanf(string(buf[:n]), `{"id":%q`, &id)
	return id
}

func clientWith(db *sql.DB, rate float64, answer func(name string, nth int) (int, string)) (*client, *fakeShop) {
	shop := &fakeShop{answer: answer, seen: map[string]int{}, looks: map[string]int{}, start: time.Now()}
	c := newClient(db, "http://shop", rate)
	c.http.Transport = shop
	return c, shop
}

func accepting(string, int) (int, string) { return 202, "" }

func clientRequests(ids ...string) (requests []request) {
	for _, id := range ids {
		if order, ok := strings.CutPrefix(id, "c-"); ok {
			requests = append(requests, request{Cancel: &cancellation{ID: id, OrderID: order, Lines: []line{{SKU: "a/b", Qty: 1}}}})
			continue
		}
		requests = append(requests, request{Order: &order{ID: id, Lines: []line{{SKU: "a/b", Qty: 1, PricePence: 5}}}})
	}
	return requests
}

// written is what client.db holds, as "id kind code reason".
func written(t *testing.T, db *sql.DB) (answers []string) {
	t.Helper()
	rows, err := db.Query(`SELECT id || ' ' || kind || ' ' || code || ' ' || reason FROM answers ORDER BY id`)
	require.NoError(t, err)
	defer rows.Close()
	for rows.Next() {
		var s string
		require.NoError(t, rows.Scan(&s))
		answers = append(answers, s)
	}
	require.NoError(t, rows.Err())
	return answers
}

// inBubble runs test with virtual time and a client.db.
func inBubble(t *testing.T, test func(t *testing.T, db *sql.DB)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, outsideDB(t, clientSchema)) })
}

func TestClientWritesDownEveryAnswer(t *testing.T) {
	inBubble(t, func(t *testing.T, db *sql.DB) {
		c, shop := clientWith(db, 10, func(name string, _ int) (int, string) {
			if strings.HasSuffix(name, "/cancellations") {
				return 409, "it is gone"
			}
			return 202, ""
		})
		require.NoError(t, c.run(t.Context(), clientRequests("1", "2", "c-1")))
		require.Equal(t, []string{"1 order 202 ", "2 order 202 ", "c-1 cancellation 409 it is gone"}, written(t, db))
		require.Equal(t, []string{"1 at 0s", "2 at 100ms", "/1/cancellations at 200ms"}, shop.posts)
		require.Equal(t, map[string]int{"/api/products/a%2Fb": 2, "/api/orders/1": 1, "/api/orders/2": 1}, shop.looks)
		require.Equal(t, []int64{3, 3, 2}, []int64{c.placed.Load(), c.answered.Load(), c.accepted.Load()})
	})
}

func TestClientDoesNotWaitForAnswersButBoundsThem(t *testing.T) {
	inBubble(t, func(t *testing.T, db *sql.DB) {
		open := make(chan struct{})
		c, shop := clientWith(db, 100, func(string, int) (int, string) { <-open; return 202, "" })
		var ids []string
		for i := range clientInFlight + 10 {
			ids = append(ids, fmt.Sprintf("%04d", i))
		}
		done := make(chan error)
		go func() { done <- c.run(t.Context(), clientRequests(ids...)) }()
		<-time.After(6 * time.Second)
		synctest.Wait()
		require.EqualValues(t, clientInFlight, c.placed.Load())
		require.Equal(t, "0255 at 2.55s", shop.posts[255])
		require.Zero(t, c.answered.Load())
		require.Empty(t, written(t, db))
		close(open)
		require.NoError(t, <-done)
		require.Len(t, written(t, db), len(ids))
	})
}

func TestClientPlacesNoCancellationBeforeItsOrderIsAnswered(t *testing.T) {
	inBubble(t, func(t *testing.T, db *sql.DB) {
		c, shop := clientWith(db, 0, func(name string, _ int) (int, string) {
			if name == "1" {
				<-time.After(5 * time.Second)
			}
			return 202, ""
		})
		require.NoError(t, c.run(t.Context(), clientRequests("1", "c-1", "c-0")))
		require.ElementsMatch(t, []string{"1 at 0s", "/0/cancellations at 0s", "/1/cancellations at 5s"}, shop.posts)
	})
}

func TestClientTriesAgain(t *testing.T) {
	for name, c := range map[string]struct {
		id       string
		answer   func(name string, nth int) (int, string)
		written  string
		min, max time.Duration
	}{
		"503 asks for a pause": {"1", func(_ string, nth int) (int, string) {
			if nth < 4 {
				return 503, "later 2"
			}
			return 202, ""
		}, "1 order 202 ", 6 * time.Second, 8 * time.Second},
		"connection broken": {"1", func(_ string, nth int) (int, string) {
			if nth < 4 {
				return 0, ""
			}
			return 202, ""
		}, "1 order 202 ", 0, time.Second},
		"503 for ever": {"1", func(string, int) (int, string) { return 503, "closed" }, "1 order 503 closed", 0, 12 * time.Second},
		"broken for ever": {"1", func(string, int) (int, string) { return 0, "" },
			`1 order 0 retry "gateway": gave up after attempt 8: Post "http://shop/api/orders": connection reset by peer`, 0, 12 * time.Second},
		"a no is a no": {"1", func(_ string, nth int) (int, string) { return 422, fmt.Sprint("no ", nth) }, "1 order 422 no 1", 0, 0},
		"order in process": {"c-1", func(_ string, nth int) (int, string) {
			if nth < 4 {
				return 409, "later 1"
			}
			return 202, ""
		}, "c-1 cancellation 202 ", 3 * time.Second, 6 * time.Second},
		"order in process, gateway closed": {"c-1", func(_ string, nth int) (int, string) {
			return map[bool]int{true: 409, false: 503}[nth%2 == 0], "later 1"
		}, "c-1 cancellation 409 later 1", 20 * time.Second, clientPatience},
		"order in process for ever": {"c-1", func(string, int) (int, string) { return 409, "later 1" },
			"c-1 cancellation 409 later 1", 25 * time.Second, clientPatience},
		"a cancellation refused for good": {"c-1", func(_ string, nth int) (int, string) { return 409, fmt.Sprint("no ", nth) },
			"c-1 cancellation 409 no 1", 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, db *sql.DB) {
				client, _ := clientWith(db, 0, c.answer)
				start := time.Now()
				require.NoError(t, client.run(t.Context(), clientRequests(c.id)))
				took := time.Since(start)
				require.Equal(t, []string{c.written}, written(t, db))
				require.True(t, took >= c.min && took <= c.max, "it took %v", took)
			})
		})
	}
}

func TestClientInterruptedLeavesTheRestForTheNextRun(t *testing.T) {
	inBubble(t, func(t *testing.T, db *sql.DB) {
		ctx, interrupt := context.WithCancel(t.Context())
		requests := clientRequests("1", "2", "3", "c-1", "c-2", "4")
		shop := func(name string, _ int) (int, string) {
			switch name {
			case "/1/cancellations":
				return 409, "later 1"
			case "2", "3":
				<-time.After(2 * time.Second) // answered after the interruption
			}
			return 202, ""
		}
		c, _ := clientWith(db, 10, shop)
		go func() { <-time.After(350 * time.Millisecond); interrupt() }()
		start := time.Now()
		require.NoError(t, c.run(ctx, requests))
		require.Equal(t, 2200*time.Millisecond, time.Since(start), "it waits for what is in flight and for nothing else")
		require.Equal(t, []string{"1 order 202 ", "2 order 202 ", "3 order 202 "}, written(t, db))

		again, second := clientWith(db, 10, accepting)
		require.NoError(t, again.run(t.Context(), requests))
		require.Equal(t, []string{"/1/cancellations at 0s", "/2/cancellations at 100ms", "4 at 200ms"}, second.posts)
		require.Len(t, written(t, db), 6)
		require.Equal(t, []int64{6, 6, 6}, []int64{again.placed.Load(), again.answered.Load(), again.accepted.Load()})
	})
}

func TestClientFailsWhenAnswersCannotBeWritten(t *testing.T) {
	inBubble(t, func(t *testing.T, db *sql.DB) {
		c, _ := clientWith(db, 0, func(string, int) (int, string) {
			_, err := db.Exec(`DROP TABLE IF EXISTS answers`)
			return 202, fmt.Sprint(err)
		})
		require.ErrorContains(t, c.run(t.Context(), clientRequests("1", "2")), "no such table")
		require.Zero(t, c.answered.Load())
		require.ErrorContains(t, c.run(t.Context(), clientRequests("1")), "no such table")
	})
}

func TestClientOverRealHTTP(t *testing.T) {
	db := outsideDB(t, clientSchema)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			w.WriteHeader(http.StatusAccepted)
		}
	}))
	defer server.Close()
	c := newClient(db, server.URL, 0)
	a := generate(1, 100)
	require.NoError(t, c.run(t.Context(), a.Requests))
	require.Len(t, written(t, db), len(a.Requests))
	require.EqualValues(t, len(a.Requests), c.accepted.Load())
	done, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, c.run(done, generate(2, 1).Requests), "nothing is placed, and that is no error")
	require.Len(t, written(t, db), len(a.Requests))
}
