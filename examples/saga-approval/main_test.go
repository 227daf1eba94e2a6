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
	require.Equal(t, `loan-1: 50 are paid out, approved by ""
loan-2: 500 are paid out, approved by "Ada"
the process ends; a loan waits
the next process takes over
loan-3: 600 are free again, since Bob says no
loan-4: 700 are free again, since saga: the event did not come in time
`, out.String())
}
