package rabbitpubsub

import (
	"sync"

	"github.com/backstay-go/backstay/pubsub"
)

// call is one Publish. Each of its messages is settled once: by the broker's answer, a refusal, or the end of the call.
type call struct {
	msgs []pubsub.Message
	done chan struct{} // closed when everything is settled

	mu      sync.Mutex
	left    int
	over    bool // Publish has returned: what comes now is nobody's
	settled []bool
	errs    []error // nil while there is none
	single  [1]bool
}

func newCall(msgs []pubsub.Message) *call {
	c := &call{msgs: msgs, done: make(chan struct{}), left: len(msgs)}
	if len(msgs) == 1 {
		c.settled = c.single[:]
	} else {
		c.settled = make([]bool, len(msgs))
	}
	return c
}

// settle notes the outcome of message i, nil when it was accepted.
func (c *call) settle(i int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settleLocked(i, err)
}

func (c *call) settleLocked(i int, err error) {
	if c.over || c.settled[i] {
		return
	}
	c.settled[i] = true
	if err != nil {
		if c.errs == nil {
			c.errs = make([]error, len(c.msgs))
		}
		c.errs[i] = err
	}
	if c.left--; c.left == 0 {
		close(c.done)
	}
}

// finish settles what is open: the messages before sent are in doubt, the rest was not sent, for the reason in cause. It
// returns the errors, which are the caller's.
func (c *call) finish(sent int, cause error) []error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.msgs {
		if c.settled[i] {
			continue
		}
		if i < sent {
			c.settleLocked(i, &lostError{cause})
		} else {
			c.settleLocked(i, cause)
		}
	}
	c.over = true
	return c.errs
}

// lostError says that the answer to a message that was sent will not come, or leaves open what became of it.
type lostError struct{ cause error }

func (e *lostError) Error() string   { return "no answer: " + e.cause.Error() }
func (e *lostError) Unwrap() []error { return []error{pubsub.ErrInDoubt, e.cause} }
