package main

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTallyCountsWhatTheDatabasesHold(t *testing.T) {
	s := openScene(t, t.TempDir())
	r, err := tally(t.Context(), s.dbs)
	require.NoError(t, err)
	require.Equal(t, result{}, r)

	s.healthy()
	s.place("o-half")
	s.exec(s.dbs.shipping, `INSERT INTO shipments VALUES ('o-half', 'booked')`)
	s.exec(s.dbs.shipping, `INSERT INTO shipment_lines VALUES ('o-half', 'mug', 2)`)
	r, err = tally(t.Context(), s.dbs)
	require.NoError(t, err)
	require.Equal(t, result{
		Orders: 24, Accepted: 23, Confirmed: 18, Cancelled: 4, Unfinished: 1,
		ChargedPence:   20 * orderPence,
		RefundedPence:  2*orderPence + mugPence,
		ConfirmedPence: 18*orderPence - mugPence,
		UnitsReserved:  18*3 - 1,
		UnitsShipped:   18*3 - 1,
		LostReplies:    21, // of twenty charges and a void
	}, r)
}
