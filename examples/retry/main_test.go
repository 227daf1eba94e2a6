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
		require.Equal(t, `  attempt 1: the supplier is busy; the next one in 20ms
  attempt 2: the supplier is busy; the next one in 40ms
tea: tea is on its way, after 3 calls
unicorn: not for sale, after 1 call
jam, wanted within 10 ms: retry "supplier": stopped after attempt 1 (context deadline exceeded): the supplier is busy
100 orders while the supplier is down: 108 calls instead of 300, 96 orders were not tried again
`, out.String())
	})
}
