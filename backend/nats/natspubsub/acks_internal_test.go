package natspubsub

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Acknowledgements count as sent on the oldest connection among them, lest some are not sent again.
func TestAcksRememberTheOldestConnection(t *testing.T) {
	a := acks{confirmed: time.Now().Add(time.Hour)}
	require.False(t, a.add([]string{"1"}, 3), "confirmed lately")
	require.False(t, a.add([]string{"2"}, 4))
	require.Equal(t, uint64(3), a.reconnects)
	a.reconnects = 4 // sent again, while these were lost:
	require.False(t, a.add([]string{"3"}, 3))
	require.Equal(t, uint64(3), a.reconnects)
	a.forget(1)
	require.Equal(t, []string{"1", "2"}, a.sent)
	require.True(t, a.add(make([]string, confirmMost), 4), "too many")
	a.confirmed = time.Now().Add(-time.Hour)
	a.sent = nil
	require.True(t, a.add(nil, 5), "confirmed long ago")
}
