package redispubsub

import (
	"context"
	"errors"
	"net"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/backstay-go/backstay/pubsub"
)

var (
	// ErrMismatch says that a topic or group exists and is not as asked for: it has another number of lanes, or the group
	// is ordered where it was to be unordered, or temporary where it was to stay.
	ErrMismatch = errors.New("redispubsub: mismatch")
	// ErrGroupGone says that the group has disappeared from the server, which happens when somebody flushes or restores
	// it, when it restarts without persistence, and when the group is destroyed. Redis says NOGROUP. A consumer ends with
	// it. Open the subscription again: with Start "start" it handles what was published meanwhile, in order.
	ErrGroupGone = errors.New("redispubsub: the group is gone from the server (NOGROUP)")
)

// code is the first word of an error with which Redis answered, or of one that a script passes on.
func code(err error) string {
	answer, ok := rueidis.IsRedisErr(err)
	if !ok {
		return ""
	}
	word, _, _ := strings.Cut(answer.Error(), " ")
	return word
}

// isGone reports whether the server does not know the group, or not its stream.
func isGone(err error) bool { return code(err) == "NOGROUP" }

// isFinal reports whether trying again cannot help. What a server says while it starts, fails over or is full passes.
func isFinal(err error) bool {
	switch code(err) {
	case "NOGROUP", "WRONGTYPE", "NOPERM", "NOAUTH", "WRONGPASS":
		return true
	}
	return errors.Is(err, rueidis.ErrClosing)
}

// lostError is the failure of a message whose answer was lost.
type lostError struct{ cause error }

func (e *lostError) Error() string   { return e.cause.Error() + ": " + pubsub.ErrInDoubt.Error() }
func (e *lostError) Unwrap() []error { return []error{e.cause, pubsub.ErrInDoubt} }

// outcome is what an error of a command says about a message: refused by the server or never sent, or in doubt.
func outcome(err error) error {
	if err == nil {
		return nil
	}
	if _, answered := rueidis.IsRedisErr(err); answered {
		return err
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return err
	}
	return &lostError{err}
}

// undated is a context whose end is known by Done alone. With a deadline, rueidis would give a connection up when a call
// has timed out on it, together with the calls of others.
type undated struct{ context.Context }

// Deadline says that there is none.
func (undated) Deadline() (deadline time.Time, ok bool) { return deadline, false }
