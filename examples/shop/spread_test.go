package main

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/breaker"
)

// instance is a server that counts what it is asked.
func instance(t *testing.T, asked *atomic.Int64) *httptest.Server {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		_, _ = w.Write([]byte(`{}`))
	}))
	t.Cleanup(srv.Close)
	return srv
}

func TestRequestsAreSpreadOverInstances(t *testing.T) {
	var one, two atomic.Int64
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	s := newSpread("s", []string{instance(t, &one).URL, instance(t, &two).URL}, client, time.Minute)
	for range 10 {
		require.NoError(t, s.peer.call(t.Context(), "GET", "/", nil, nil))
	}
	require.EqualValues(t, 5, one.Load())
	require.EqualValues(t, 5, two.Load())
}

func TestAnInstanceThatIsGoneIsLeftOut(t *testing.T) {
	var one, two atomic.Int64
	gone, well := instance(t, &one), instance(t, &two)
	gone.Close()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	s := newSpread("s", []string{gone.URL, well.URL}, client, time.Minute)
	failed := 0
	for range 40 {
		if s.peer.call(t.Context(), "GET", "/", nil, nil) != nil {
			failed++
		}
	}
	require.Less(t, failed, 20, "its breaker opens after five failures; on a slow machine it is probed now and then")
	require.GreaterOrEqual(t, failed, 5)
	well.Close()
	require.Eventually(t, func() bool {
		err := s.peer.call(t.Context(), "GET", "/", nil, nil)
		return err != nil && breakerIsOpen(err)
	}, wait, time.Millisecond)
}

func breakerIsOpen(err error) bool {
	no, ok := err.(*breaker.Error)
	return ok && no.Rejected()
}

func TestTheGatewayAsksAnotherInstance(t *testing.T) {
	var one, two atomic.Int64
	gone, well := instance(t, &one), instance(t, &two)
	gone.Close()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	g := &gateway{}
	p := g.guarded("s", []string{gone.URL, well.URL}, client)
	for range 20 {
		require.NoError(t, p.call(t.Context(), "GET", "/", nil, nil))
	}
	require.EqualValues(t, 20, two.Load())
}
