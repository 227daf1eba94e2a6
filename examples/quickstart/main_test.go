package main

import (
	"bytes"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTheStory(t *testing.T) {
	defer http.DefaultClient.CloseIdleConnections()
	var out bytes.Buffer
	start := time.Now()
	require.NoError(t, run(t.Context(), &out))
	require.Less(t, time.Since(start), 5*time.Second)
	require.Equal(t, `all is well          £2.55                  retries 0   breaker closed      fallbacks 0
the server fails     £2.50 (yesterday's)    retries 2   breaker closed      fallbacks 1
it still fails       £2.50 (yesterday's)    retries 2   breaker open        fallbacks 2
nobody asks it now   £2.50 (yesterday's)    retries 0   breaker open        fallbacks 3
a probe succeeds     £2.55                  retries 0   breaker closed      fallbacks 3

5 calls, 5 answers; 4 retries, the breaker opened 1 time and spared the server 2 calls.
`, out.String())
}
