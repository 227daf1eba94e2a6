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
	require.Equal(t, `tea    orders: placed, confirmed; payments: taken; stock: reserved
mug    orders: placed, cancelled; payments: taken, refunded; stock: missing
yacht  orders: placed, cancelled; payments: refused; stock: -
`, out.String())
}
