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
	require.Equal(t, `payment-1: fails after its update, which is rolled back
payment-1: a pound for anna
payment-2: a pound for anna
after 4 messages handled the account has 200 pence
request-7: 50 pence are paid out, 150 are left
request-7: 50 pence are paid out, 150 are left
after two requests the account has 150 pence
`, out.String())
}
