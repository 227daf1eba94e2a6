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

// The story goes as told where its timeout of a second and the half second for which the breaker is open are long compared with
// what the machine takes. A run that took far longer than that half second is no story, and another one is made.
func TestTheStory(t *testing.T) {
	defer http.DefaultClient.CloseIdleConnections()
	const calm, tries = 700 * time.Millisecond, 20
	var out bytes.Buffer
	for try := 1; ; try++ {
		out.Reset()
		start := time.Now()
		err := run(t.Context(), &out)
		if took := time.Since(start); took > calm && try < tries {
			t.Logf("the machine is busy: a run took %v", took)
			continue
		}
		require.NoError(t, err)
		break
	}
	require.Equal(t, `all is well          £2.55                  retries 0   breaker closed      fallbacks 0
the server fails     £2.50 (yesterday's)    retries 2   breaker closed      fallbacks 1
it still fails       £2.50 (yesterday's)    retries 2   breaker open        fallbacks 2
nobody asks it now   £2.50 (yesterday's)    retries 0   breaker open        fallbacks 3
a probe succeeds     £2.55                  retries 0   breaker closed      fallbacks 3

5 calls, 5 answers; 4 retries, the breaker opened 1 time and spared the server 2 calls.
`, out.String())
}
