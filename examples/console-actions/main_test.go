package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/backstay-go/backstay/breaker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestAnOperatorMendsTheService(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), &out, settings{listen: "127.0.0.1:0", actions: true, password: "secret"}), &out)
	require.Equal(t, `force_open: {"done":true}
requeue: {"done":true}
retry: {"done":true}
the breaker is open
published: i-1
undone: t-1
`, out.String())
}

func TestWithoutTheFlagItIsReadOnly(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), &out, settings{listen: "127.0.0.1:0"}), &out)
	const refused = `{"error":"the console is read-only"}`
	require.Equal(t, "force_open: "+refused+"\nrequeue: "+refused+"\nretry: "+refused+"\nthe breaker is closed\n", out.String())
	require.ErrorContains(t, run(t.Context(), &out, settings{actions: true}), "OPERATOR_PASSWORD")
}

// untouched requires that nobody has acted.
func untouched(t *testing.T, s *service, of string) {
	t.Helper()
	require.Equal(t, breaker.Closed, s.bank.State(), of)
	require.Equal(t, "auto", s.bank.Config().Mode, of)
	parked, err := s.relay.store.Parked(t.Context(), 0, 10)
	require.NoError(t, err)
	require.Len(t, parked, 1, of)
	in, _, err := s.runner.Inspect(t.Context(), "t-1")
	require.NoError(t, err)
	require.Equal(t, "stuck", string(in.Status), of)
}

// Each action is refused to other sites' pages although the operator's browser sends the password, by each method but POST, and
// without the password.
func TestNoOtherPageAndNobodyElseCanAct(t *testing.T) {
	s, err := open(t.Context(), settings{actions: true, password: "secret"})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.close()) }()
	pages := s.pages()
	send := func(method, path string, change func(*http.Request)) int {
		r := httptest.NewRequest(method, "http://travel.example"+consolePath+path, strings.NewReader(`{"input":"t-1"}`))
		r.SetBasicAuth(operator, "secret")
		r.Header.Set("X-Backstay-Action", "1")
		r.Header.Set("Sec-Fetch-Site", "same-origin")
		r.Header.Set("Origin", "http://travel.example")
		change(r)
		w := httptest.NewRecorder()
		pages.ServeHTTP(w, r)
		return w.Code
	}
	attacks := map[string]struct {
		code   int
		change func(*http.Request)
	}{
		"another site's script": {403, func(r *http.Request) {
			r.Header.Set("Sec-Fetch-Site", "cross-site")
			r.Header.Set("Origin", "http://evil.example")
		}},
		"a sibling host's script": {403, func(r *http.Request) {
			r.Header.Set("Sec-Fetch-Site", "same-site")
			r.Header.Set("Origin", "http://x.travel.example")
		}},
		"an old browser's script":   {403, func(r *http.Request) { r.Header.Del("Sec-Fetch-Site"); r.Header.Set("Origin", "http://evil.example") }},
		"a form":                    {403, func(r *http.Request) { r.Header.Del("X-Backstay-Action"); r.Header.Set("Content-Type", "text/plain") }},
		"a form of its own page":    {403, func(r *http.Request) { r.Header.Del("X-Backstay-Action") }},
		"nobody":                    {401, func(r *http.Request) { r.Header.Del("Authorization") }},
		"somebody else":             {401, func(r *http.Request) { r.SetBasicAuth("guest", "secret") }},
		"one who tries a password":  {401, func(r *http.Request) { r.SetBasicAuth(operator, "Secret") }},
		"one who gives none at all": {401, func(r *http.Request) { r.SetBasicAuth(operator, "") }},
	}
	mine := func(*http.Request) {}
	var routes []string
	for id := 1; id <= 3; id++ {
		for _, action := range []string{"force_open", "force_closed", "automatic", "requeue", "retry"} {
			routes = append(routes, fmt.Sprintf("api/objects/%d/actions/%s", id, action))
		}
	}
	for _, route := range routes {
		for name, attack := range attacks {
			require.Equal(t, attack.code, send(http.MethodPost, route, attack.change), "%s: %s", name, route)
		}
		for _, method := range []string{"GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "post"} {
			require.Equal(t, 405, send(method, route, mine), "%s %s", method, route)
		}
		untouched(t, s, route)
	}
	for _, route := range []string{"", "api", "api/objects/1", "api/objects/2", "api/objects/3"} {
		for _, method := range []string{"POST", "PUT", "PATCH", "DELETE"} {
			require.Equal(t, 405, send(method, route, mine), "%s %s", method, route)
		}
		require.Equal(t, 401, send("GET", route, attacks["nobody"].change), route)
	}
	untouched(t, s, "the rest")
	done := 0
	for _, route := range routes {
		if send(http.MethodPost, route, mine) == 200 {
			done++
		}
	}
	require.Equal(t, 5, done, "the operator can: three for the breaker, one for each of the others")
}
