package pubsub_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/backstay-go/backstay/pubsub"
)

// machine runs a consumer against an oracle.
type machine struct {
	*oracle
	batched bool
	c       *pubsub.Consumer
	cancel  context.CancelFunc
	result  chan error
}

func newMachine(rt *rapid.T) *machine {
	ordered := rapid.Bool().Draw(rt, "ordered")
	s := pubsub.Subscription{
		Topic: "t", Group: "g", Ordered: ordered, HoldKey: ordered && rapid.Bool().Draw(rt, "hold"),
		Concurrency: rapid.IntRange(1, 4).Draw(rt, "concurrency"), MaxAttempts: rapid.IntRange(1, 4).Draw(rt, "attempts"),
		BatchSize: rapid.IntRange(1, 5).Draw(rt, "batch"), BatchWait: 200 * time.Millisecond,
		Lease: 2 * time.Second, HandleTimeout: 3 * time.Second, DrainTimeout: time.Second,
		BackoffMax: 5 * time.Second, LaneDepth: rapid.IntRange(2, 8).Draw(rt, "depth"),
	}
	m := &machine{oracle: newOracle(s, rapid.Bool().Draw(rt, "delayed nack")), batched: rapid.Bool().Draw(rt, "batched")}
	m.start(rt)
	return m
}

func (m *machine) start(rt *rapid.T) {
	m.mu.Lock()
	m.allowed, m.limit = m.sub.Concurrency, 2*m.sub.Concurrency*m.batchSize()
	m.mu.Unlock()
	var err error
	m.c, err = pubsub.New(m.oracle).Open(context.Background(), m.sub)
	require.NoError(rt, err)
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel, m.result = cancel, make(chan error, 1)
	c, result := m.c, m.result
	go func() {
		if m.batched {
			result <- c.RunBatch(ctx, m.handleBatch)
			return
		}
		result <- c.Run(ctx, m.handle)
	}()
}

func (m *machine) batchSize() int {
	if m.batched {
		return m.sub.BatchSize
	}
	return 1
}

func (m *machine) stop() {
	m.cancel()
	err := <-m.result
	m.locked(func() {
		if m.settleMode == 0 && err != nil && !errors.Is(err, pubsub.ErrDrainTimeout) {
			m.fault("Run: %v", err)
		}
	})
}

func (m *machine) handle(ctx context.Context, msg pubsub.Message) error {
	return m.handleBatch(ctx, []pubsub.Message{msg})
}

func (m *machine) handleBatch(ctx context.Context, msgs []pubsub.Message) error {
	each := make(pubsub.BatchErrors, len(msgs))
	batch, whats := make([]*leased, len(msgs)), make([]string, len(msgs))
	m.mu.Lock()
	if len(msgs) > m.limit {
		m.fault("batch of %d", len(msgs))
	}
	for i, msg := range msgs {
		batch[i], whats[i] = m.begin(msg)
	}
	owner := batch[0].owner
	if owner.running++; owner == m.open && owner.running > m.allowed {
		m.fault("%d handlers run", owner.running)
	}
	m.mu.Unlock()
	aborted := true // by a panic or Goexit
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if owner.running--; owner == m.open {
			m.allowed = max(m.sub.Concurrency, owner.running)
		}
		for i, l := range batch {
			if aborted && each[i] == nil {
				each[i] = errBoom
			}
			m.end(l, each[i])
		}
	}()
	for i, what := range whats {
		each[i] = m.act(ctx, what)
	}
	aborted = false
	if !m.batched {
		return each[0]
	}
	for _, e := range each {
		if e != nil {
			return each
		}
	}
	return nil
}

func (m *machine) act(ctx context.Context, what string) error {
	switch what {
	case "error":
		return errBoom
	case "dead":
		return pubsub.DeadLetter(errBoom)
	case "later":
		return pubsub.RetryAfter(1500*time.Millisecond, errBoom)
	case "panic":
		panic(errBoom)
	case "exit":
		runtime.Goexit()
	case "slow":
		take(700 * time.Millisecond)
	case "hang":
		<-ctx.Done()
		return ctx.Err()
	case "deaf":
		take(8 * time.Second)
	}
	return nil
}

var (
	lanesAndKeys = rapid.IntRange(0, 5)
	scripts      = rapid.SliceOfN(rapid.SampledFrom([]string{"", "error", "error", "dead", "dead", "later", "panic", "exit", "slow", "slow", "hang", "deaf"}), 0, 4)
)

func (m *machine) publish(rt *rapid.T) {
	for range rapid.IntRange(1, 6).Draw(rt, "n") {
		k := lanesAndKeys.Draw(rt, "key")
		msg := pubsub.Message{ID: fmt.Sprint("m", len(m.msgs)), Topic: "t", Key: fmt.Sprint("k", k)}
		if group := rapid.SampledFrom([]string{"", "", "g", "other"}).Draw(rt, "redriven for"); group != "" {
			msg.Header = pubsub.Header{pubsub.HeaderRedrive: group + "/1"}
		}
		m.add(msg, k%2, scripts.Draw(rt, "script"))
	}
}

// locked runs fn on the oracle.
func (m *machine) locked(fn func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	fn()
}

func (m *machine) actions() map[string]func(*rapid.T) {
	pass := func(rt *rapid.T) {
		elapse(time.Duration(rapid.IntRange(1, 30).Draw(rt, "100ms")) * 100 * time.Millisecond)
	}
	return map[string]func(*rapid.T){
		"publish":    m.publish,
		"publish2":   m.publish,
		"wait":       pass,
		"wait2":      pass,
		"settling":   func(rt *rapid.T) { n := rapid.IntRange(0, 5).Draw(rt, "mode"); m.locked(func() { m.settleMode = n }) },
		"publishing": func(rt *rapid.T) { n := rapid.IntRange(0, 3).Draw(rt, "mode"); m.locked(func() { m.publishMode = n }) },
		"lane anew": func(rt *rapid.T) {
			n := rapid.IntRange(0, 1).Draw(rt, "lane")
			m.locked(func() { m.anew(n) })
		},
		"duplicate": func(rt *rapid.T) {
			if m.sub.Ordered || len(m.msgs) == 0 {
				rt.Skip()
			}
			n := rapid.IntRange(0, len(m.msgs)-1).Draw(rt, "message")
			m.locked(func() { m.dups = append(m.dups, m.msgs[n]); m.notify() })
		},
		"reconfigure": func(rt *rapid.T) {
			s := m.c.Config()
			s.Concurrency, s.BatchSize = rapid.IntRange(1, 4).Draw(rt, "concurrency"), rapid.IntRange(1, 5).Draw(rt, "batch")
			m.locked(func() {
				m.sub.Concurrency, m.sub.BatchSize = s.Concurrency, s.BatchSize
				m.allowed = max(m.allowed, s.Concurrency)
				m.limit = max(m.limit, 2*s.Concurrency*m.batchSize())
			})
			require.NoError(rt, m.c.Reconfigure(s))
		},
		"restart": func(rt *rapid.T) {
			m.stop()
			m.start(rt)
		},
		"": m.check,
	}
}

func (m *machine) check(rt *rapid.T) {
	synctest.Wait()
	if faults := m.wrong(); len(faults) > 0 {
		rt.Fatal(faults)
	}
}

// finish heals the broker and wants everything to be settled.
func (m *machine) finish(rt *rapid.T) {
	m.locked(func() { m.settleMode, m.publishMode = 0, 0 })
	for range 600 {
		if len(m.unfinished()) == 0 {
			break
		}
		elapse(time.Second)
	}
	m.check(rt)
	require.Empty(rt, m.unfinished(), "after ten minutes")
	elapse(time.Minute) // deaf handlers end
	s := m.c.Stats()
	require.Zero(rt, s.InFlight+s.Waiting+s.Held)
}

// TestConsumerAgainstAnOracle has a broker do all that its contract allows: lose, delay and half accept verdicts, give
// lanes anew, deliver duplicates; handlers do all that people do; members come and go. The oracle checks each delivery,
// handler call and verdict, and in the end that nothing is left.
func TestConsumerAgainstAnOracle(t *testing.T) {
	rounds := 1
	if os.Getenv("BACKSTAY_LONG") == "1" {
		rounds = 100 // of a day of the bubble's time each, after which rapid stops
	}
	for range rounds {
		synctest.Test(t, func(t *testing.T) {
			// Hidden behind the interface, since rapid would ask for the Deadline, which a bubble does not allow.
			rapid.Check(struct{ rapid.TB }{t}, func(rt *rapid.T) {
				m := newMachine(rt)
				defer func() {
					m.stop()
					elapse(time.Minute) // deaf handlers end
				}()
				rt.Repeat(m.actions())
				m.finish(rt)
			})
		})
	}
}
