package pubsub

import "errors"

// Held keys (Subscription.HoldKey) are remembered per lane and only while the lane stays: when it begins anew, with a
// new epoch or after a lost lease, another member may have moved on, and the lane's keys are free again. Messages
// without a key are never held, since their order does not matter.
//
// maxHolds bounds the keys that a consumer holds. A message whose key would be one more does not become a dead letter:
// it stays here, under lease, in front of its successors, and its dead letter is tried again after BackoffMax, until
// another key is free. So nothing is lost and nothing is handled before it; lanes that are full of such messages wait.
const maxHolds = 10_000

var errHoldsFull = errors.New("pubsub: the dead letter waits: too many keys are held behind other dead letters")

// hold prepares the burial of items: it keeps their leases for as long as their publish may take, and holds their keys
// before any successor can become ready. It returns those that can be buried now. For a message that is somebody
// else's by now there must be no dead letter, since that one may handle it.
func (c *Consumer) hold(s *Subscription, items []*item) []*item {
	var refused []*item
	free := items[:0]
	until := later(c.clock.now(), s.Lease)
	c.mu.Lock()
	for _, it := range items {
		if it.lost { // the message comes again, and it is for whoever gets it to bury it
			it.verdict = Nack
			c.remember(it)
			continue
		}
		it.overdue = until
		if s.HoldKey && !c.queue.hold(it) {
			refused = append(refused, it)
			continue
		}
		free = append(free, it)
	}
	c.mu.Unlock()
	for _, it := range refused {
		c.again(s, it, s.BackoffMax, errHoldsFull)
	}
	return free
}

// hold holds the item's key, if it has one, and reports false if there are too many. A stale item holds nothing.
func (q *queue) hold(it *item) bool {
	if it.Key == "" || it.lost || q.isHeld(it) {
		return true
	}
	if q.holds >= maxHolds {
		return false
	}
	l := q.lane(it)
	if l.held == nil {
		l.held = make(map[string]struct{})
	}
	l.held[it.Key] = struct{}{}
	q.holds++
	return true
}

func (q *queue) isHeld(it *item) bool {
	_, held := q.lane(it).held[it.Key]
	return held
}

// unhold frees the item's key.
func (q *queue) unhold(it *item) {
	l := q.lane(it)
	if _, held := l.held[it.Key]; held {
		delete(l.held, it.Key)
		q.holds--
	}
}

// unholdAll frees the keys of a lane.
func (q *queue) unholdAll(l *lane) {
	q.holds -= len(l.held)
	l.held = nil
}
