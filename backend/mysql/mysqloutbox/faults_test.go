package mysqloutbox_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxtest"
	"github.com/backstay-go/backstay/pubsub"
)

var errRefused = errors.New("refused")

// A process dies between the commit and the broker: another publishes what it committed.
func TestF01_KillBetweenCommitAndPublish(t *testing.T) {
	t.Parallel()
	url, dir := newDatabase(t), t.TempDir()
	b := openBroker(t, dir)
	s, _ := migrated(t, url)
	c := spawn(t, "commit and die", url, dir)
	c.says(t, "committed")
	c.kill(t)
	start(t, s, b, fast, b.watch())
	drained(t, s)
	verify(t, b.messages(t), committed(), int(size(t, b.fenced))*fast.Batch)
}

// A process dies between the broker's answer and the deletion: at most a batch is repeated, with the same IDs.
func TestF02_KillBetweenPublishAndDelete(t *testing.T) {
	t.Parallel()
	url, dir := newDatabase(t), t.TempDir()
	b := openBroker(t, dir)
	s, _ := migrated(t, url)
	kills, rounds := either(2, 10), either(5, 100)
	for n := range rounds {
		putRound(t, s, n+1)
	}
	for range kills {
		c := spawn(t, "publish and die", url, dir)
		c.says(t, "published")
		c.kill(t)
	}
	start(t, s, b, fast, b.watch())
	drained(t, s)
	verify(t, b.messages(t), rounds, (kills+int(size(t, b.fenced)))*fast.Batch)
	require.Greater(t, len(b.messages(t)), keys*rounds, "the dead have published what was not deleted")
}

// The broker takes nothing for a while: nothing is lost, nothing is parked, and it is not asked in a hot loop.
func TestF03_BrokerDown(t *testing.T) {
	t.Parallel()
	s, _ := newStore(t)
	rounds := either(5, 100)
	for n := range rounds {
		putRound(t, s, n+1)
	}
	p := &outboxtest.Publisher{}
	p.Refuse(func(pubsub.Message) error { return errRefused })
	cfg := fast
	cfg.MaxAttempts, cfg.PollMax = 3, 250*time.Millisecond
	began := time.Now()
	start(t, s, p, cfg)
	outage := time.Duration(either(2, 60)) * time.Second
	wait, cancel := context.WithTimeout(t.Context(), outage)
	defer cancel()
	require.ErrorIs(t, p.Wait(wait, func([]pubsub.Message, int) bool { return false }), context.DeadlineExceeded)
	// It begins at 5 ms and doubles: a few more calls than one for every PollMax.
	require.LessOrEqual(t, p.Calls(), int(time.Since(began)/cfg.PollMax)+12, "calls of a publisher that is away")
	backlog, err := s.Backlog(t.Context())
	require.NoError(t, err)
	require.Zero(t, backlog.Parked)
	require.EqualValues(t, keys*rounds, backlog.Pending)
	p.Refuse(nil)
	drained(t, s)
	verify(t, p.Messages(), rounds, 0)
}

// The broker accepts and its answer is lost, for one call in three.
func TestF04_AcknowledgementLost(t *testing.T) {
	t.Parallel()
	s, _ := newStore(t)
	rounds := either(5, 100)
	p := &outboxtest.Publisher{}
	var lost atomic.Int64
	unreliable := publisherFunc(func(ctx context.Context, msgs ...pubsub.Message) error {
		err := p.Publish(ctx, msgs...)
		if rand.IntN(3) == 0 {
			lost.Add(int64(len(msgs)))
			return errors.Join(err, errRefused)
		}
		return err
	})
	cfg := fast
	cfg.MaxAttempts = -1
	for range 3 {
		start(t, s, unreliable, cfg)
	}
	for n := range rounds {
		putRound(t, s, n+1)
	}
	drained(t, s)
	verify(t, p.Messages(), rounds, int(lost.Load())+3*fast.Batch)
	require.Positive(t, lost.Load())
}

// A relay is stopped in the middle of a call for longer than its lease, and goes on: what it settles then is refused.
func TestF05_StoppedPastItsLease(t *testing.T) {
	t.Parallel()
	url, dir := newDatabase(t), t.TempDir()
	b := openBroker(t, dir)
	s, _ := migrated(t, url)
	putRound(t, s, 1)
	c := spawn(t, "publish and wait", url, dir)
	c.says(t, "waiting")
	require.NoError(t, c.Process.Signal(syscall.SIGSTOP))
	start(t, s, b, fast, b.watch())
	rounds := either(5, 100)
	for n := 2; n <= rounds; n++ {
		putRound(t, s, n)
	}
	drained(t, s)
	before := size(t, b.fenced)
	require.NoError(t, c.Process.Signal(syscall.SIGCONT))
	_, err := c.in.Write([]byte("go on\n"))
	require.NoError(t, err)
	eventually(t, "the relay that went on is fenced", func() bool { return size(t, b.fenced) > before })
	putRound(t, s, rounds+1) // both share the work now
	drained(t, s)
	verify(t, b.messages(t), rounds+1, int(size(t, b.fenced))*fast.Batch)
}

// Three relays of 100 keys die again and again while messages are stored.
func TestF06_ThreeRelaysUnderKills(t *testing.T) {
	t.Parallel()
	url, dir := newDatabase(t), t.TempDir()
	b := openBroker(t, dir)
	s, _ := migrated(t, url)
	kills, stored := either(6, 33), 0
	rounds := either(6, 100) // at least
	var relays [3]*child
	for i := range relays {
		relays[i] = spawn(t, "relay", url, dir)
	}
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for kill := range kills {
		before := size(t, b.published)
		eventually(t, "progress", func() bool {
			if stored < 3*(kill+1) {
				stored++
				putRound(t, s, stored)
			}
			return size(t, b.published) > before+rand.Int64N(10_000)
		}, func() int64 { return size(t, b.published) })
		i := rand.IntN(len(relays))
		relays[i].kill(t)
		relays[i] = spawn(t, "relay", url, dir)
	}
	for ; stored < rounds; stored++ {
		putRound(t, s, stored+1)
	}
	drained(t, s)
	for _, c := range relays {
		c.kill(t)
	}
	verify(t, b.messages(t), stored, (kills+int(size(t, b.fenced)))*fast.Batch)
}

// The head of one key is poison: it is parked and its key waits, while the others flow.
func TestF10_PoisonHead(t *testing.T) {
	t.Parallel()
	s, _ := newStore(t)
	rounds := either(5, 100)
	p := &outboxtest.Publisher{}
	p.Refuse(func(m pubsub.Message) error {
		if m.ID == "7/1" {
			return errors.New("poison \xff\x00, and a very long reason")
		}
		return nil
	})
	for n := range rounds {
		putRound(t, s, n+1)
	}
	cfg := fast
	cfg.MaxAttempts = 3
	parked := make(chan outbox.Failure, 1)
	var once sync.Once
	for range 3 {
		start(t, s, p, cfg, outbox.OnFailure(func(f outbox.Failure) {
			if f.Parked {
				once.Do(func() { parked <- f })
			}
		}))
	}
	// Messages beside it show that the message is to blame and not the publisher.
	eventually(t, "parking", func() bool {
		put(t, s, pubsub.Message{ID: "beside", Topic: "t", Key: "beside", Payload: []byte("1")})
		return len(parked) > 0
	})
	f := <-parked
	require.NoError(t, p.Wait(t.Context(), func(taken []pubsub.Message, _ int) bool { return len(without(taken, "beside")) == (keys-1)*rounds }))
	list, err := s.Parked(t.Context(), 0, 10)
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.Equal(t, "7/1", list[0].Record.Message.ID)
	require.Contains(t, list[0].Reason, "poison")
	p.Refuse(nil)
	n, err := s.Requeue(t.Context(), f.Record.Seq)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	drained(t, s)
	verify(t, without(p.Messages(), "beside"), rounds, 3*fast.Batch)
}

func without(msgs []pubsub.Message, key string) []pubsub.Message {
	var rest []pubsub.Message
	for _, m := range msgs {
		if m.Key != key {
			rest = append(rest, m)
		}
	}
	return rest
}
