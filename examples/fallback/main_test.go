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
		require.Equal(t, `tea      £2.55
mug      £8.90, second best: the supplier does not answer
jam      £4.00, second best: the supplier does not answer
unicorn  no price: there is no such product
yacht    no price: the supplier does not answer, and 2 alternatives have none
2 answers were second best, 1 call had none
`, out.String())
	})
}
