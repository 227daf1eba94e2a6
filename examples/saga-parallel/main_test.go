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
		require.Equal(t, `three bookings of 100 ms each
  pay for flight to Rome, hotel to Rome, car to Rome
  = completed after 100 ms
one of three cannot be had
  cancel the hotel, if it was booked
  cancel the flight, if it was booked
  = compensated: saga "trip": instance "trip-2" compensated at step "bookings": there are no cars in Venice
`, out.String())
	})
}
