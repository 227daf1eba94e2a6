package policyhttp_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/policyhttp"
)

// bodies answers 503 until the last attempt, and notes what arrived.
func bodies(attempts int) (http.HandlerFunc, *[]string) {
	var got []string
	return func(w http.ResponseWriter, r *http.Request) {
		data, _ := io.ReadAll(r.Body)
		if got = append(got, string(data)); len(got) < attempts {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}, &got
}

func TestBodiesAreSentAgainWhole(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", 4<<10) // 64 KiB
	for name, body := range map[string]io.Reader{
		"GetBody":                strings.NewReader(long + "more"),
		"recorded":               io.NopCloser(strings.NewReader("order 42")),
		"recorded, at the limit": io.NopCloser(strings.NewReader(long)),
	} {
		t.Run(name, func(t *testing.T) {
			handler, got := bodies(3)
			url, base, connections := serve(t, handler)
			resp, err := policyhttp.Transport(base, atOnce(3)).RoundTrip(request(t, "PUT", url, body))
			require.NoError(t, err)
			require.Equal(t, http.StatusOK, resp.StatusCode)
			require.NoError(t, resp.Body.Close())
			require.Len(t, *got, 3)
			require.Equal(t, []string{(*got)[0], (*got)[0]}, (*got)[1:])
			require.NotEmpty(t, (*got)[0])
			require.Equal(t, int64(1), connections.Load())
		})
	}
}

func TestABodyTooLongToRecordIsSentOnce(t *testing.T) {
	handler, got := bodies(3)
	url, base, _ := serve(t, handler)
	long := strings.Repeat("x", 64<<10+1)
	for _, policy := range []backstay.Policy{atOnce(3), stubborn(3)} {
		*got = nil
		resp, err := policyhttp.Transport(base, policy).RoundTrip(request(t, "PUT", url, io.NopCloser(strings.NewReader(long))))
		require.NoError(t, err)
		require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, []string{long}, *got)
	}
}

func TestABodyThatWasNotReadIsSentAfterTheRefusal(t *testing.T) {
	handler, got := bodies(1)
	url, base, _ := serve(t, handler)
	attempts := 0
	flaky := fake(func(req *http.Request) (*http.Response, error) {
		if attempts++; attempts == 1 {
			return nil, errRefused
		}
		return base.RoundTrip(req)
	})
	body := &closing{Reader: strings.NewReader("order 42")}
	resp, err := policyhttp.Transport(flaky, atOnce(2)).RoundTrip(request(t, "PUT", url, body))
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, []string{"order 42"}, *got)
	require.Equal(t, 1, body.closed)
}

func TestABodyIsNotReadBeforeTheBaseReadsIt(t *testing.T) {
	reader, writer := io.Pipe()
	base := fake(func(req *http.Request) (*http.Response, error) {
		go func() {
			_, _ = io.WriteString(writer, "written after the request was sent")
			_ = writer.Close()
		}()
		data, err := io.ReadAll(req.Body)
		return answer(200, string(data)), err
	})
	resp, err := policyhttp.Transport(base, atOnce(2)).RoundTrip(request(t, "PUT", "http://bank/", reader))
	require.NoError(t, err)
	require.Equal(t, "written after the request was sent", readAll(t, resp))
}

// keeping is a base that answers while it goes on reading, as HTTP allows.
type keeping struct {
	status int
	bodies []io.ReadCloser
}

func (k *keeping) RoundTrip(req *http.Request) (*http.Response, error) {
	k.bodies = append(k.bodies, req.Body)
	return answer(k.status, ""), nil
}

func TestABodyThatIsStillBeingSentIsNotSentAgain(t *testing.T) {
	for _, status := range []int{200, 503} {
		base, body := &keeping{status: status}, &closing{Reader: strings.NewReader("x")}
		resp, err := policyhttp.Transport(base, atOnce(3)).RoundTrip(request(t, "PUT", "http://bank/", body))
		require.NoError(t, err)
		require.Equal(t, status, resp.StatusCode)
		require.NoError(t, resp.Body.Close())
		require.Len(t, base.bodies, 1)
		require.Zero(t, body.closed, "the base still reads it")
		data, err := io.ReadAll(base.bodies[0])
		require.NoError(t, err)
		require.Equal(t, "x", string(data))
		require.NoError(t, base.bodies[0].Close())
		require.Equal(t, 1, body.closed)
		_, err = base.bodies[0].Read(make([]byte, 1))
		require.ErrorIs(t, err, http.ErrBodyReadAfterClose)
	}
}

func TestABodyThatCannotBeReadAgainEndsTheAttempts(t *testing.T) {
	errGone := errors.New("the file is gone")
	base, sent := statuses(503)
	req := request(t, "PUT", "http://bank/", strings.NewReader("x"))
	req.GetBody = func() (io.ReadCloser, error) { return nil, errGone }
	_, err := policyhttp.Transport(base, atOnce(3)).RoundTrip(req)
	require.ErrorIs(t, err, errGone)
	require.Equal(t, 1, *sent)
}

func TestABrokenBodyIsNotRecorded(t *testing.T) {
	base := fake(func(req *http.Request) (*http.Response, error) {
		_, err := io.ReadAll(req.Body)
		return nil, err
	})
	errBroken := errors.New("broken")
	_, err := policyhttp.Transport(base, atOnce(3)).RoundTrip(request(t, "PUT", "http://bank/", io.MultiReader(strings.NewReader("x"), brokenReader{errBroken})))
	require.Equal(t, errBroken, err)
}

type brokenReader struct{ err error }

func (b brokenReader) Read([]byte) (int, error) { return 0, b.err }
