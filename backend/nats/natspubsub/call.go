package natspubsub

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay/pubsub"
)

// call is one Publish: the sender puts its messages on their way one after the other, and each is settled once, by the
// server's answer, a refusal, or the end of the call.
type call struct {
	ctx      context.Context // bounds the sender's work for this call, as the deadline does
	deadline time.Time
	msgs     []pubsub.Message
	id       uint64
	done     chan struct{} // closed when everything is settled
	// sent counts the messages that the sender has begun to send; it is -1 once Publish has given up. Both sides change
	// it in one step, so that nothing is sent that was reported as not sent.
	sent    atomic.Int64
	refused map[int]bool // not to be sent; fixed before the sender sees it

	mu         sync.Mutex
	left       int
	settled    []bool
	errs       []error
	duplicates uint64
	single     struct { // the room of a call with one message
		settled [1]bool
		errs    [1]error
	}
}

func newCall(ctx context.Context, deadline time.Time, msgs []pubsub.Message) *call {
	c := &call{ctx: ctx, deadline: deadline, msgs: msgs, done: make(chan struct{}), left: len(msgs)}
	if len(msgs) == 1 {
		c.settled, c.errs = c.single.settled[:], c.single.errs[:]
	} else {
		c.settled, c.errs = make([]bool, len(msgs)), make([]error, len(msgs))
	}
	return c
}

// next takes message i for sending. It reports false when Publish has given up.
func (c *call) next(i int) bool { return c.sent.CompareAndSwap(int64(i), int64(i)+1) }

// settle notes the outcome of message i, nil when it was accepted. It reports false if there was one already.
func (c *call) settle(i int, err error, duplicate bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i >= len(c.settled) || c.settled[i] {
		return false
	}
	c.settled[i], c.errs[i] = true, err
	if duplicate {
		c.duplicates++
	}
	if c.left--; c.left == 0 {
		close(c.done)
	}
	return true
}

// refuse settles message i before the sender has seen the call.
func (c *call) refuse(i int, err error) {
	if c.refused == nil {
		c.refused = make(map[int]bool)
	}
	c.refused[i] = true
	c.settle(i, err, false)
}

// abandon settles what is open: what was sent is in doubt, the rest is not sent for the reason in cause. It returns the
// number of messages that were in flight. Of two who abandon a call at once, the second waits for the first.
func (c *call) abandon(cause error) (inFlight int) {
	sent := c.sent.Swap(-1)
	if sent < 0 {
		<-c.done
		return 0
	}
	inFlight = c.settleOpen(int(sent), &lostError{cause})
	c.settleOpen(len(c.msgs), cause)
	return inFlight
}

// lose settles, in doubt, what was sent and not answered.
func (c *call) lose(cause error) (inFlight int) {
	return c.settleOpen(int(c.sent.Load()), &lostError{cause})
}

func (c *call) settleOpen(before int, err error) (n int) {
	for i := range min(before, len(c.msgs)) {
		if c.settle(i, err, false) {
			n++
		}
	}
	return n
}
