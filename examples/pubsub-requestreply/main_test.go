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
		require.Equal(t, `tea: 300 pence
unicorn: requestreply: the server answered error: no product unicorn
slow: requestreply: client "prices" (in doubt): context deadline exceeded
its reply came late and was dropped
200 calls at once: 0 wrong
`, out.String())
	})
}
