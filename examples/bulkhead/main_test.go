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
		require.Equal(t, `10 callers at once: 4 labels, 6 callers were told "bulkhead: full"
at most 2 labels were printed at a time
slots for each customer: anna got 2 of 10, ben got 2 of 2
`, out.String())
	})
}
