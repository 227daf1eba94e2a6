package policyhttp_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/policyhttp"
	"github.com/backstay-go/backstay/retry"
	"github.com/backstay-go/backstay/timeout"
)

// onContext is a body that goes on until its request's context ends.
type onContext struct{ ctx context.Context }

func (b onContext) Close() error { return nil }

func (b onContext) Read([]byte) (int, error) {
	<-b.ctx.Done()
	return 0, b.ctx.Err()
}

func hangingBody(req *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: 200, Body: onContext{req.Context()}}, nil
}

// ranOut is what the timeout of that name says of a body.
func ranOut(t *testing.T, err error, name string) {
	t.Helper()
	require.ErrorIs(t, err, context.DeadlineExceeded)
	of, ok := err.(*timeout.Error)
	require.True(t, ok, "%v", err)
	require.Equal(t, name, of.Name)
}

func TestATimeoutBoundsTheBodyToo(t *testing.T) {
	orders := map[string]func(total, h, attempt backstay.Policy) []backstay.Policy{
		"canonical": func(total, h, attempt backstay.Policy) []backstay.Policy {
			return []backstay.Policy{total, atOnce(2), h, attempt}
		},
		"shorter one first": func(total, h, attempt backstay.Policy) []backstay.Policy { return []backstay.Policy{attempt, h, total} },
		"inside a foreign": func(total, h, attempt backstay.Policy) []backstay.Policy {
			return []backstay.Policy{hasty{}, total, h, attempt}
		},
		"round a foreign": func(total, h, attempt backstay.Policy) []backstay.Policy {
			return []backstay.Policy{total, h, attempt, hasty{}}
		},
		"foreign between": func(total, h, attempt backstay.Policy) []backstay.Policy {
			return []backstay.Policy{attempt, hasty{}, h, total}
		},
		"per host": func(total, h, attempt backstay.Policy) []backstay.Policy {
			return []backstay.Policy{total, h, policyhttp.PerHost(lookup[backstay.Policy]{"bank": attempt})}
		},
	}
	for name, order := range orders {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := bulkhead.New(bulkhead.Config{})
				total := timeout.New(timeout.Config{Name: "total", After: 50 * time.Second})
				attempt := timeout.New(timeout.Config{Name: "attempt", After: time.Second})
				start := time.Now()
				resp, err := policyhttp.Transport(fake(hangingBody), order(total, h, attempt)...).RoundTrip(request(t, "GET", "http://bank/", nil))
				require.NoError(t, err)
				for range 2 {
					_, err = resp.Body.Read(make([]byte, 1))
					ranOut(t, err, "attempt")
					require.Equal(t, time.Second, time.Since(start))
					require.Zero(t, h.Stats().Running, "an error ends the body")
				}
				require.NoError(t, resp.Body.Close())
				require.Equal(t, timeout.Stats{Calls: 1, TimedOut: 1}, attempt.Stats())
				require.Equal(t, timeout.Stats{Calls: 1}, total.Stats())
			})
		})
	}
}

// TestATimeoutInTheBodyClosesTheConnection has the standard transport and a server that hangs after a piece of the body.
func TestATimeoutInTheBodyClosesTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := make(chan error, 1)
		base := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
			client, server := net.Pipe()
			go func() {
				_, err := http.ReadRequest(bufio.NewReader(server))
				if err == nil {
					_, err = io.WriteString(server, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nbegun")
				}
				if err == nil {
					_, err = server.Read(make([]byte, 1))
				}
				gone <- err
			}()
			return client, nil
		}}
		h := bulkhead.New(bulkhead.Config{})
		total, attempt := timeout.New(timeout.Config{After: time.Minute}), timeout.New(timeout.Config{Name: "attempt", After: time.Second})
		start := time.Now()
		resp, err := policyhttp.Transport(base, total, atOnce(2), h, attempt).RoundTrip(request(t, "GET", "http://bank/", nil))
		require.NoError(t, err)
		data, err := io.ReadAll(resp.Body)
		ranOut(t, err, "attempt")
		require.Equal(t, "begun", string(data))
		require.Equal(t, time.Second, time.Since(start))
		require.ErrorIs(t, <-gone, io.EOF, "what a closed pipe gives")
		require.Equal(t, timeout.Stats{Calls: 1, TimedOut: 1}, attempt.Stats())
		require.Equal(t, timeout.Stats{Calls: 1}, total.Stats())
		require.Zero(t, h.Stats().Running)
		require.NoError(t, resp.Body.Close())
	})
}

func TestABodyThatEndsWellIsNotTimedOut(t *testing.T) {
	for name, finish := range map[string]func(resp *http.Response) error{
		"read":   func(resp *http.Response) error { _, err := io.ReadAll(resp.Body); return err },
		"closed": func(resp *http.Response) error { return resp.Body.Close() },
	} {
		synctest.Test(t, func(t *testing.T) {
			second := timeout.New(timeout.Config{After: time.Second})
			base := fake(func(req *http.Request) (*http.Response, error) {
				context.AfterFunc(req.Context(), func() {})
				return answer(200, "all there"), nil
			})
			resp, err := policyhttp.Transport(base, second, second).RoundTrip(request(t, "GET", "http://bank/", nil))
			require.NoError(t, err)
			<-time.After(time.Minute)
			require.NoError(t, finish(resp), name)
			require.Equal(t, timeout.Stats{Calls: 2}, second.Stats(), name)
		})
	}
}

func TestOtherErrorsOfTheBodyPassAsTheyAre(t *testing.T) {
	base := fake(func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Body: io.NopCloser(iotest.ErrReader(errRefused))}, nil
	})
	minute := timeout.New(timeout.Config{After: time.Minute})
	resp, err := policyhttp.Transport(base, minute, bulkhead.New(bulkhead.Config{}), hasty{}).RoundTrip(request(t, "GET", "http://bank/", nil))
	require.NoError(t, err)
	_, err = resp.Body.Read(make([]byte, 1))
	require.Equal(t, errRefused, err)
	require.Zero(t, minute.Stats().TimedOut)
}

// TestTheReaderWhomCloseOvertakesLearnsTheReason has a body that a Read leaves only when it is closed, as somebody does who watches
// the request's context.
func TestTheReaderWhomCloseOvertakesLearnsTheReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for range 100 {
			h := bulkhead.New(bulkhead.Config{})
			second := timeout.New(timeout.Config{Name: "second", After: time.Second})
			src, _ := io.Pipe()
			var inner context.Context
			base := fake(func(req *http.Request) (*http.Response, error) {
				inner = req.Context()
				return &http.Response{StatusCode: 200, Body: src}, nil
			})
			resp, err := policyhttp.Transport(base, h, second).RoundTrip(request(t, "GET", "http://bank/", nil))
			require.NoError(t, err)
			read := make(chan error, 1)
			go func() {
				_, err := resp.Body.Read(make([]byte, 1))
				read <- err
			}()
			<-inner.Done()
			require.NoError(t, resp.Body.Close())
			err = <-read
			ranOut(t, err, "second")
			require.ErrorIs(t, err, io.ErrClosedPipe)
			require.Equal(t, timeout.Stats{Calls: 1, TimedOut: 1}, second.Stats())
			require.Zero(t, h.Stats().Running)
		}
	})
}

// TestATimeoutWhileAFailedResponseIsReadAhead has it recognised by the retrier, and by whoever reads the response in the end.
func TestATimeoutWhileAFailedResponseIsReadAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		attempt := timeout.New(timeout.Config{Name: "attempt", After: 100 * time.Millisecond})
		var seen []error
		r := retry.New(retry.Config{MaxAttempts: 2, InitialInterval: -1}, retry.OnRetry(func(e retry.Event) { seen = append(seen, e.Err) }))
		base := fake(func(req *http.Request) (*http.Response, error) {
			return &http.Response{StatusCode: 503, Body: onContext{req.Context()}}, nil
		})
		start := time.Now()
		resp, err := policyhttp.Transport(base, r, attempt).RoundTrip(request(t, "GET", "http://bank/", nil))
		require.NoError(t, err)
		require.Equal(t, 200*time.Millisecond, time.Since(start))
		require.Len(t, seen, 1)
		ranOut(t, seen[0], "attempt")
		_, err = io.ReadAll(resp.Body)
		ranOut(t, err, "attempt")
		require.Equal(t, timeout.Stats{Calls: 2, TimedOut: 2}, attempt.Stats())
	})
}

// TestALateFailureIsATimeout has a base that does not obey, and a failed response whose body is too long to be taken at once.
func TestALateFailureIsATimeout(t *testing.T) {
	for _, size := range []int{0, 100, 1 << 20} {
		synctest.Test(t, func(t *testing.T) {
			attempt := timeout.New(timeout.Config{Name: "attempt", After: time.Second})
			var seen []error
			r := retry.New(retry.Config{MaxAttempts: 2, InitialInterval: -1}, retry.OnRetry(func(e retry.Event) { seen = append(seen, e.Err) }))
			base := fake(func(*http.Request) (*http.Response, error) {
				<-time.After(time.Minute)
				return answer(503, strings.Repeat("x", size)), nil
			})
			resp, err := policyhttp.Transport(base, r, attempt).RoundTrip(request(t, "GET", "http://bank/", nil))
			require.NoError(t, err)
			require.Len(t, seen, 1)
			ranOut(t, seen[0], "attempt")
			require.Len(t, readAll(t, resp), size)
			require.Equal(t, timeout.Stats{Calls: 2, TimedOut: 2}, attempt.Stats())
		})
	}
}

func TestAnAttemptTimeoutAddsFewAllocations(t *testing.T) {
	base := fake(func(req *http.Request) (*http.Response, error) {
		select {
		case <-req.Context().Done():
			return nil, req.Context().Err()
		default:
			return answer(200, "x"), nil
		}
	})
	added := func(policies ...backstay.Policy) float64 {
		return allocations(t, policyhttp.Transport(base, policies...)) - allocations(t, base)
	}
	r, b, minute := retry.New(retry.Config{}), breaker.New(breaker.Config{}), timeout.New(timeout.Config{After: time.Minute})
	// The exchange, the call, the request with its context, and a channel and a timer with its function, since base waits.
	require.LessOrEqual(t, added(r, b, minute), 6.0)
	// One permit more, and another call with all that is its own; the inner one needs no timer then.
	require.LessOrEqual(t, added(minute, r, b, bulkhead.New(bulkhead.Config{}), minute), 10.0)
}

func allocations(t *testing.T, rt http.RoundTripper) float64 {
	t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), "GET", "http://bank/", http.NoBody)
	require.NoError(t, err)
	return testing.AllocsPerRun(200, func() {
		resp, _ := rt.RoundTrip(req)
		_ = resp.Body.Close()
	})
}

func TestTheCallersCancellationEndsTheBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		rt := policyhttp.Transport(fake(hangingBody), timeout.New(timeout.Config{After: time.Minute}))
		start := time.Now()
		resp, err := rt.RoundTrip(request(t, "GET", "http://bank/", nil).WithContext(ctx))
		require.NoError(t, err)
		_, err = resp.Body.Read(make([]byte, 1))
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, time.Second, time.Since(start))
	})
}

func TestClosingTheBodyReleasesTheTimeout(t *testing.T) {
	var inner context.Context
	base := fake(func(req *http.Request) (*http.Response, error) {
		inner = req.Context()
		return answer(200, "x"), nil
	})
	for _, policy := range []backstay.Policy{timeout.New(timeout.Config{After: time.Minute}), hasty{}} {
		resp, err := policyhttp.Transport(base, policy).RoundTrip(request(t, "GET", "http://bank/", nil))
		require.NoError(t, err)
		require.NoError(t, inner.Err())
		deadline, ok := inner.Deadline()
		require.True(t, ok)
		require.WithinDuration(t, time.Now().Add(time.Minute), deadline, 30*time.Second)
		require.NoError(t, resp.Body.Close())
		require.ErrorIs(t, inner.Err(), context.Canceled)
	}
}
