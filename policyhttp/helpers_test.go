package policyhttp_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/policyhttp"
	"github.com/backstay-go/backstay/retry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for a server before it says that something is broken.
const patience = time.Minute

// counted makes a server, which is not started yet, and counts the connections made to it.
func counted(t *testing.T, handler http.HandlerFunc) (*httptest.Server, *atomic.Int64) {
	t.Helper()
	connections := new(atomic.Int64)
	server := httptest.NewUnstartedServer(handler)
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	t.Cleanup(func() {
		server.CloseClientConnections() // a test that has failed may have left requests under way
		server.Close()
	})
	return server, connections
}

// serve starts a server on loopback and returns its address, a base transport and the number of connections made so far.
func serve(t *testing.T, handler http.HandlerFunc) (url string, base *http.Transport, connections *atomic.Int64) {
	t.Helper()
	server, connections := counted(t, handler)
	server.Start()
	base = &http.Transport{ResponseHeaderTimeout: patience}
	t.Cleanup(base.CloseIdleConnections)
	return server.URL, base, connections
}

// fake is a base transport without a network.
type fake func(*http.Request) (*http.Response, error)

func (f fake) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		defer func() { _ = req.Body.Close() }()
	}
	return f(req)
}

func answer(status int, body string, header ...string) *http.Response {
	h := http.Header{}
	for i := 0; i < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body))}
}

// statuses answers with one status after the other, and then with the last one.
func statuses(codes ...int) (fake, *int) {
	sent := new(int)
	return func(*http.Request) (*http.Response, error) {
		code := codes[min(*sent, len(codes)-1)]
		*sent++
		return answer(code, http.StatusText(code)), nil
	}, sent
}

func request(t *testing.T, method, url string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	require.NoError(t, err)
	return req
}

func readAll(t *testing.T, resp *http.Response) string {
	t.Helper()
	data, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return string(data)
}

// atOnce repeats without a delay.
func atOnce(attempts int) *retry.Retrier {
	return retry.New(retry.Config{MaxAttempts: attempts, InitialInterval: -1})
}

// stubborn is a foreign policy that repeats everything.
type stubborn int

func (n stubborn) Do(ctx context.Context, op func(context.Context) error) error {
	err := op(ctx)
	for range n - 1 {
		if err != nil {
			err = op(ctx)
		}
	}
	return err
}

// hasty is a foreign policy that ends its context as soon as the operation is done, as a timeout does.
type hasty struct{}

func (hasty) Do(ctx context.Context, op func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return op(ctx)
}

// together is a chain that tells what it consists of.
type together []backstay.Policy

func (c together) Policies() []backstay.Policy { return c }

func (c together) Do(ctx context.Context, op func(context.Context) error) error {
	return backstay.Chain(c...).Do(ctx, op)
}

// lookup is a set of policies by key.
type lookup[P backstay.Policy] map[string]P

func (l lookup[P]) Get(key string) P { return l[key] }

var errRefused = errors.New("connection refused")

var _ http.RoundTripper = policyhttp.Transport(nil)
