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
		require.Equal(t, `10 ms of work:             paid
a minute of work:          the limit's time is up
the caller has less time:  the caller's time is up
it does not listen:        the limit's time is up; the caller is back after 100ms
functions left behind:     1, and in the end 0
`, out.String())
	})
}
