package pubsub

import (
	"errors"
	"iter"
	"sync/atomic"
	"time"
)

// BusStats are counts of a Bus since New.
type BusStats struct {
	// Published counts messages that the broker accepted, dead letters of the Bus's consumers among them.
	Published int64
	// Failed counts messages that it did not, those refused before they were sent and those in doubt among them.
	Failed int64
	// InDoubt counts messages of which it is not known whether the broker accepted them.
	InDoubt int64
	// Consumers is the number of consumers open now.
	Consumers int
}

type busCounts struct{ published, failed, inDoubt atomic.Int64 }

// count notes how a call of Publish with n messages ended, and passes on its error.
func (c *busCounts) count(n int, err error) error {
	if err == nil {
		c.published.Add(int64(n))
		return nil
	}
	pe, ok := errors.AsType[*PublishError](err)
	if !ok {
		c.failed.Add(int64(n))
		return err
	}
	c.published.Add(int64(n - len(pe.Failed)))
	c.failed.Add(int64(len(pe.Failed)))
	for _, f := range pe.Failed {
		if f.InDoubt {
			c.inDoubt.Add(1)
		}
	}
	return err
}

// Stats returns a snapshot. It never waits for the broker.
func (b *Bus) Stats() BusStats {
	b.mu.Lock()
	open := len(b.consumers)
	b.mu.Unlock()
	return BusStats{
		Published: b.counts.published.Load(), Failed: b.counts.failed.Load(), InDoubt: b.counts.inDoubt.Load(), Consumers: open,
	}
}

// Describe names the bus, by its driver, for the console and telemetry.
func (b *Bus) Describe() (kind, name string, config any) {
	caps := b.driver.Capabilities()
	return "pubsub.bus", caps.Driver, struct {
		Driver         string `json:"driver"`
		Durability     string `json:"durability"`
		PublishTimeout string `json:"publish_timeout"`
	}{caps.Driver, caps.Durability, timeoutText(b.publishTimeout)}
}

func timeoutText(d time.Duration) string {
	if d < 0 {
		return "off"
	}
	return d.String()
}

// Metrics yields Stats under the names used in telemetry.
func (b *Bus) Metrics() iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) {
		s := b.Stats()
		_ = yield("published_total", float64(s.Published)) &&
			yield("publish_failed_total", float64(s.Failed)) &&
			yield("in_doubt_total", float64(s.InDoubt)) &&
			yield("consumers", float64(s.Consumers))
	}
}
