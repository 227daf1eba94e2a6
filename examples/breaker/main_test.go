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
		require.Equal(t, `paid:         receipt for tea
the bank goes down
failed:       connection refused
failed:       connection refused
              closed -> open
failed:       connection refused
not called:   come back in 200ms
not called:   come back in 200ms
after 200 ms, with the bank still down
              open -> half-open
              half-open -> open
failed:       connection refused
not called:   come back in 200ms
after 200 ms, with the bank up again
              open -> half-open
              half-open -> closed
paid:         receipt for tea
paid:         receipt for tea
10 payments were asked for; the bank was called 7 times and spared 3
`, out.String())
	})
}
