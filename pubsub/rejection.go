package pubsub

import "time"

// minRejection is the shortest wait after a rejection, so that a subscription without backoff does not spin.
const minRejection = time.Millisecond

// rejected reports whether err says that the handler did not run: a policy round it, such as an open breaker or a full
// bulkhead, refused the call. An error that wraps such a one is the handler's own.
func rejected(err error) bool {
	direct, ok := err.(interface{ Rejected() bool })
	return ok && direct.Rejected()
}

// reject has a message wait here for as long as the policy asks, or the backoff. It does so even if the broker could
// hold it back, since a broker would count a delivery, and an open breaker would turn good messages into dead letters.
func (c *Consumer) reject(s *Subscription, it *item, err error) {
	it.rejections++
	delay, asked := askedDelay(err)
	if !asked {
		delay = s.backoff(it.rejections)
	}
	delay = max(delay, minRejection)
	c.mu.Lock()
	c.counts.Rejected++
	c.mu.Unlock()
	c.bus.hooks.retry(Retried{Consumer: s.Name, Message: it.message(), Delay: delay, Err: err})
	it.verdict, it.delay, it.free = Extend, delay, true
}
