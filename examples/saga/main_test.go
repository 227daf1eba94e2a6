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
	require.Equal(t, `order-1, an order of tea
  reserve:       take from the shelf (key order-1/reserve/do)
  charge:        take the money (key order-1/charge/do)
  ship:          send the parcel with receipt 1 (key order-1/ship/do)
  = completed
order-2, an order of yacht
  reserve:       take from the shelf (key order-2/reserve/do)
  reserve:       put back on the shelf (key order-2/reserve/undo)
  = compensated
order-3, an order of yacht
  reserve:       take from the shelf (key order-3/reserve/do)
  = stuck
a person looks at order-3 and opens the warehouse
  reserve:       put back on the shelf (key order-3/reserve/undo)
  = compensated, and its history has 6 entries
`, out.String())
}
