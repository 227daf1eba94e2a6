package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTheStory(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), &out, "127.0.0.1:0", false), &out)
	require.Equal(t, `all is well
  ready 200 ready, live 200, bank ok
the bank is down: the service is degraded, and of more use than none
  ready 200 degraded, live 200, bank degraded
its own database is away: send callers elsewhere, but do not restart it
  ready 503 failed, live 200, bank degraded
`, out.String())
}
