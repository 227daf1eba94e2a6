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
	require.NoError(t, run(t.Context(), &out), &out)
	require.Equal(t, `the server is busy twice:  OK                 attempts that failed so far: 2
there is no such service:  NotFound           attempts that failed so far: 2
the server stays busy:     Unavailable        attempts that failed so far: 5
that was too much:         ResourceExhausted  attempts that failed so far: 6
`, out.String())
}
