package mempubsub

import (
	"errors"
	"fmt"
)

// ErrFull is what every *Error is: there was no room for the message.
var ErrFull = errors.New("mempubsub: full")

// Error says which limit refused a message. It was queued nowhere, so publishing it again makes no duplicate. With
// Config.WhenFull "wait" it is wrapped together with the error of the context that ended the wait.
type Error struct {
	// Topic is that of the message.
	Topic string
	// Group is the one that is full. It is empty when the limit is the topic's: that of its unread dead letters or
	// of the IDs remembered for DedupWindow.
	Group string
	// Limit is the number that was reached, for a group its MaxPending.
	Limit int

	what string // what there are Limit of
}

// Error names the topic, the group and the limit.
func (e *Error) Error() string {
	if e.Group == "" {
		return fmt.Sprintf("mempubsub: topic %q is full: it has %d %s", e.Topic, e.Limit, e.what)
	}
	return fmt.Sprintf("mempubsub: group %q of topic %q is full: it has %d %s", e.Group, e.Topic, e.Limit, e.what)
}

// Is matches ErrFull.
func (e *Error) Is(target error) bool { return target == ErrFull }

// Rejected is true: nothing was published.
func (e *Error) Rejected() bool { return true }
