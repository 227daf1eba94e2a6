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
	require.Regexp(t, `^a transaction with \d+ readings fails, and nothing of it is kept
1000 readings: 999 rows in [1-4]?\d transactions, 1 dead letter
$`, out.String())
}
