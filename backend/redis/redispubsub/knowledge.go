package redispubsub

import (
	"context"

	"github.com/backstay-go/backstay/pubsub"
)

// Lag implements pubsub.Lagger. The server does not always know how many entries of a lane the group has not read, such as
// after a Start at a time, and for most of an ordered group; up to 1000 of the lane are counted then. Of an ordered group it
// knows only up to where all is settled: what follows is Waiting, and Unsettled is negative.
func (m *member) Lag(ctx context.Context) (pubsub.Lag, error) {
	var lag pubsub.Lag
	for _, lane := range m.topic.lanes { // one by one, so that the server can do something else
		answer, err := m.driver.attend(ctx, lagScript, []string{lane}, m.group)
		if err == nil {
			var n []int64
			if n, err = answer.AsIntSlice(); err == nil && len(n) != 2 {
				err = errAnswer
			}
			if err == nil {
				lag.Waiting += n[0]
				lag.Unsettled += n[1]
			}
		}
		if err != nil {
			return pubsub.Lag{}, m.wrap(err)
		}
	}
	if m.ordered {
		lag.Unsettled = -1
	}
	return lag, nil
}
