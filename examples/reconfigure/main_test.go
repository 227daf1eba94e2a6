package main

import (
	"bytes"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTheStory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		require.NoError(t, run(t.Context(), &out), &out)
		require.Equal(t, `as started
  max_attempts 2, breaker closed, max_concurrent 8: calls to the bank: 2
a file with faults
  refused: retry: Config.Multiplier is 0.5: it must be 1 or more, or 0 for the default
breaker: Config.Mode is maybe: it must be "auto", "force_open", "force_closed" or "metrics_only"
breaker: Config.Window is -1: it must be from 1 to 1000000, or 0 for the default
bulkhead: Config.MaxConcurrent is 2000000: it must be from 1 to 1000000, or 0 for the default
  max_attempts 2, breaker closed, max_concurrent 8: calls to the bank: 2
a file with a typing error
  refused: unknown field "max_atempts"
  max_attempts 2, breaker closed, max_concurrent 8: calls to the bank: 2
a file that stops all calls to the bank
  max_attempts 4, breaker open, max_concurrent 2: calls to the bank: 0
the first file again: the breaker begins with one probe, which fails
  max_attempts 2, breaker open, max_concurrent 8: calls to the bank: 1
`, out.String())
	})
}
