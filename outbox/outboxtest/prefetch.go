package outboxtest

import (
	"errors"
	"testing"

	"github.com/backstay-go/backstay/outbox"
)

// While a batch is in hand the next is read: what is behind it in its lanes, and nothing of a lane that is held, before and after the
// batch is settled.
func testPrefetch[Tx any](t *testing.T, h Harness[Tx]) {
	s := h.New(t)
	ahead, can := s.(outbox.Prefetcher)
	if !can {
		skip(t, "the store does not read ahead")
	}
	put(t, s, message("held", "held 1"), message("a", "a1"), message("b", "b1"), message("a", "a2"), message("held", "held 2"), message("c", "c1"))
	l := lease(t, s, "a")
	head := fetch(t, s, l, 1)
	ok(t, s.Settle(waiting(t), l, nil, []outbox.Failure{{Record: head[0], Err: errors.New("refused"), Parked: true}}))
	inHand := fetch(t, s, l, 2)
	equal(t, "in hand", ids(inHand), "a1 b1 ")
	for _, settled := range []bool{false, true} {
		if settled {
			ok(t, s.Settle(waiting(t), l, inHand, nil))
		}
		next, err := ahead.FetchExcept(waiting(t), l, inHand, 10)
		ok(t, err)
		equal(t, "read ahead", ids(next), "a2 c1 ")
		next, err = ahead.FetchExcept(waiting(t), l, inHand, 1)
		ok(t, err)
		equal(t, "limited", ids(next), "a2 ")
	}
	left, err := ahead.FetchExcept(waiting(t), l, nil, 10)
	ok(t, err)
	equal(t, "with nothing in hand", ids(left), "a2 c1 ")
}
