package kafkapubsub

import (
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// pulse knows until when the brokers take this process for a member, by the answers to its heartbeats. A process that
// was stopped, or whose connection hangs, may find its partitions with others; its client learns of it only by the next
// heartbeat, and until then nothing more must be handled.
type pulse struct {
	session   time.Duration
	rebalance time.Duration
	until     atomic.Int64 // on the clock of now
	revived   atomic.Bool  // one heartbeat was answered since it was late
}

var (
	_ kgo.HookBrokerE2E   = (*pulse)(nil)
	_ kgo.HookBrokerWrite = (*pulse)(nil)
)

// Keys of the requests that keep a member alive.
const (
	keyJoin      = 11
	keyHeartbeat = 12
	keySync      = 14
)

func (p *pulse) alive() bool { return int64(now()) < p.until.Load() }

// OnBrokerWrite notes that the member waits for the others to join: meanwhile it sends no heartbeats, and needs none.
func (p *pulse) OnBrokerWrite(_ kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, err error) {
	if key == keyJoin && err == nil && p.alive() {
		p.until.Store(int64(now() + p.rebalance))
	}
}

// OnBrokerE2E notes an answer. The session has begun anew when the request was sent, or later. The answer to a late
// heartbeat may be that there is no such member; the client has acted on it when the next one is answered.
func (p *pulse) OnBrokerE2E(_ kgo.BrokerMetadata, key int16, e kgo.BrokerE2E) {
	t := now()
	sent := t - e.DurationE2E()
	failed := e.Err() != nil
	switch {
	case key == keyJoin:
		if p.alive() { // the join is over, and with it the time that it had
			p.until.Store(int64(t + p.session))
		}
	case failed:
	case key == keySync:
		p.revived.Store(false)
		p.until.Store(int64(sent + p.session))
	case key == keyHeartbeat:
		if !p.alive() && !p.revived.Swap(true) {
			return
		}
		p.revived.Store(false)
		p.until.Store(max(int64(sent+p.session), p.until.Load()))
	}
}
