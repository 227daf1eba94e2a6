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
		require.Equal(t, `refused: come back in 50ms
refused: come back in 50ms
3 of 5 were sent at once
6 callers who wait were all sent in 250 ms, 5 of them from the queue
a rate for each customer: anna sent 2 of 4, ben 1 of 1
`, out.String())
	})
}
