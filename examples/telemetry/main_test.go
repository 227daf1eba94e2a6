package main

import (
	"bytes"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTheScrapeAndTheSpans(t *testing.T) {
	defer http.DefaultClient.CloseIdleConnections()
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), &out, "127.0.0.1:0", false))
	require.Equal(t, `backstay_breaker_failures_total{backstay_name="bank"} 2
backstay_breaker_successes_total{backstay_name="bank"} 2
backstay_breaker_window_calls{backstay_name="bank"} 4
backstay_breaker_window_failures{backstay_name="bank"} 2
backstay_retry_calls_total{backstay_name="bank"} 2
backstay_retry_recovered_total{backstay_name="bank"} 2
backstay_retry_retries_total{backstay_name="bank"} 2
span: ask the bank internal Error
span: ask the bank internal Unset
span: GET /quotes/{item} server Unset
span: ask the bank internal Error
span: ask the bank internal Unset
span: GET /quotes/{item} server Unset
`, out.String())
}
