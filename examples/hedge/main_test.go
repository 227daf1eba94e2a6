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
		require.Equal(t, `alone:  the slowest of 100 answers took 400 ms
hedged: the slowest of 100 answers took  52 ms
100 questions took 105 calls; of 5 second calls 5 answered, and 5 slow ones were cancelled
`, out.String())
	})
}
