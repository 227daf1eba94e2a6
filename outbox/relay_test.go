package outbox_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxtest"
	"github.com/backstay-go/backstay/pubsub"
)

var errDown = errors.New("broker away")

// put stores one message for each key.
func put(t *testing.T, s *memStore, keys ...string) {
	t.Helper()
	ob := outbox.New(s, outbox.Config{})
	require.NoError(t, ob.InTx(t.Context(), func(ctx context.Context, tx *memTx) error {
		for _, key := range keys {
			if err := ob.Publish(ctx, tx, pubsub.Message{Topic: "t", Key: key}); err != nil {
				return err
			}
		}
		return nil
	}))
}

func keys(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprint("key", i)
	}
	return list
}

// run runs the relay until the test calls stop.
func run(t *testing.T, r *outbox.Relay) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	return func() {
		t.Helper()
		cancel()
		require.NoError(t, <-done)
	}
}

// after lets virtual time pass.
func after(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// taken is how much p has, without the messages themselves, which would fill the screen.
func taken(p *outboxtest.Publisher) int { return len(p.Messages()) }

type publisherFunc func(ctx context.Context, msgs ...pubsub.Message) error

func (f publisherFunc) Publish(ctx context.Context, msgs ...pubsub.Message) error {
	return f(ctx, msgs...)
}

// A long outage, told either way: tried about once a second, nothing parked, nothing counted, all out soon after.
func TestOutageParksNothingAndIsNotAHotLoop(t *testing.T) {
	for name, whole := range map[string]bool{"error for the whole call": true, "error for each message": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, p := newMemStore(), &outboxtest.Publisher{}
				var calls atomic.Int64
				var away atomic.Bool
				flaky := publisherFunc(func(ctx context.Context, msgs ...pubsub.Message) error {
					calls.Add(1)
					if away.Load() && whole {
						return errDown
					}
					return p.Publish(ctx, msgs...)
				})
				r := outbox.NewRelay(s, flaky, outbox.RelayConfig{})
				stop := run(t, r)
				put(t, s, "before") // the publisher is known to work
				after(2 * time.Second)

				away.Store(true)
				p.Refuse(func(pubsub.Message) error { return errDown })
				calls.Store(0)
				put(t, s, keys(1000)...)
				for range 600 {
					after(time.Second)
					r.Notify() // commits go on meanwhile
				}
				require.Less(t, calls.Load(), int64(700))
				require.Greater(t, calls.Load(), int64(550))
				require.Zero(t, r.Stats().GivenUp)

				away.Store(false)
				p.Refuse(nil)
				after(5 * time.Second)
				require.Equal(t, 1001, taken(p))
				stop()
			})
		})
	}
}

// Nothing else is published, so nothing tells a broken message from a broken publisher: it is retried gently, and a message of
// another key that comes in meanwhile does not wait for it longer than PollMax.
func TestLoneFailureDelaysNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := newMemStore(), &outboxtest.Publisher{}
		p.Refuse(func(m pubsub.Message) error {
			if m.Key == "poison" {
				return errDown
			}
			return nil
		})
		r := outbox.NewRelay(s, p, outbox.RelayConfig{MaxAttempts: 3})
		stop := run(t, r)
		put(t, s, "poison")
		after(time.Hour)
		require.Less(t, p.Calls(), 3700)
		require.Zero(t, r.Stats().GivenUp)
		for i := range 3 {
			put(t, s, fmt.Sprint("good", i))
			after(time.Second)
			require.Equal(t, i+1, taken(p))
			after(time.Second)
		}
		after(time.Minute)
		require.EqualValues(t, 1, r.Stats().GivenUp, "good messages beside it have shown that the publisher works")
		stop()
	})
}

// A publisher that refuses every call with the broken message in it, as a whole or with an error for each message as pubsub.Bus
// does: the others get through all the same, and only the broken one is parked.
func TestWholeCallRefusedForOneMessage(t *testing.T) {
	plain := func(int) error { return errDown }
	each := func(n int) error {
		e := &pubsub.PublishError{Total: n}
		for i := range n {
			e.Failed = append(e.Failed, pubsub.Failure{Index: i, Err: errDown})
		}
		return e
	}
	for name, refusal := range map[string]func(int) error{"plain error": plain, "an error for each": each} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { testWholeCallRefused(t, refusal) })
		})
	}
}

func testWholeCallRefused(t *testing.T, refusal func(n int) error) {
	s, p := newMemStore(), &outboxtest.Publisher{}
	var parked []string
	r := outbox.NewRelay(s, publisherFunc(func(ctx context.Context, msgs ...pubsub.Message) error {
		for _, m := range msgs {
			if m.Key == "key250" {
				return refusal(len(msgs))
			}
		}
		return p.Publish(ctx, msgs...)
	}), outbox.RelayConfig{MaxAttempts: 2}, outbox.OnFailure(func(f outbox.Failure) {
		if f.Parked {
			parked = append(parked, f.Record.Message.Key)
		}
	}))
	stop := run(t, r)
	put(t, s, "before")
	after(time.Second)
	put(t, s, keys(500)...)
	after(3 * time.Second)
	require.Equal(t, 500, taken(p))
	for i := range 10 {
		put(t, s, fmt.Sprint("later", i))
		after(5 * time.Second)
	}
	require.Equal(t, 510, taken(p))
	stop()
	require.Equal(t, []string{"key250"}, parked)
}

type permanentError struct{ error }

func (permanentError) Permanent() bool { return true }

func TestPermanentErrorParksAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := newMemStore(), &outboxtest.Publisher{}
		p.Refuse(func(m pubsub.Message) error {
			if m.Key == "huge" {
				return permanentError{errors.New("too large")}
			}
			return nil
		})
		r := outbox.NewRelay(s, p, outbox.RelayConfig{})
		stop := run(t, r)
		put(t, s, "huge", "good")
		after(100 * time.Millisecond)
		require.EqualValues(t, 1, r.Stats().GivenUp)
		stop()
	})
}

func TestCancelFinishesTheBatchInHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newMemStore()
		begun, published := make(chan struct{}), 0
		r := outbox.NewRelay(s, publisherFunc(func(ctx context.Context, msgs ...pubsub.Message) error {
			close(begun)
			<-time.After(time.Second)
			published += len(msgs)
			return ctx.Err()
		}), outbox.RelayConfig{})
		put(t, s, "a", "b", "a") // the second of key a is not in hand
		stop := run(t, r)
		<-begun
		stop()
		require.Equal(t, 2, published)
		require.Len(t, s.records, 1)
		l, err := s.Lease(t.Context(), "next", time.Minute)
		require.NoError(t, err)
		require.Equal(t, outbox.Buckets, l.Count(), "the leases were given back")
	})
}

// Whatever method of the store fails, for longer than a lease: nothing is published twice and nothing lost.
func TestStoreTroubleIsWaitedOut(t *testing.T) {
	for _, method := range []string{"Lease", "Fetch", "Settle", "Backlog", "Release"} {
		for _, length := range []time.Duration{100 * time.Millisecond, 5 * time.Second, time.Minute} {
			t.Run(fmt.Sprint(method, " away for ", length), func(t *testing.T) {
				if method == "Settle" && length >= 10*time.Second {
					t.Log("away for longer than the relay tries: the batch is published once more, as documented")
				}
				synctest.Test(t, func(t *testing.T) {
					s, p := newMemStore(), &outboxtest.Publisher{}
					var reported atomic.Int64
					r := outbox.NewRelay(s, p, outbox.RelayConfig{}, outbox.OnError(func(error) { reported.Add(1) }))
					stop := run(t, r)
					after(time.Second)
					until := time.Now().Add(length)
					s.mu.Lock()
					s.calls = 0
					s.fail = func(m string) error {
						if m == method && time.Now().Before(until) {
							return errDown
						}
						return nil
					}
					s.mu.Unlock()
					put(t, s, keys(10)...)
					r.Notify()
					after(length + 15*time.Second)
					if method != "Release" && length > time.Second {
						require.Positive(t, reported.Load())
					}
					require.Less(t, s.calls, 600, "no hot loop on the store")
					if method == "Settle" && length >= 10*time.Second {
						require.GreaterOrEqual(t, taken(p), 10)
					} else {
						require.Equal(t, 10, taken(p))
					}
					require.Empty(t, s.records)
					stop()
				})
			})
		}
	}
}

// The batch behind is read while one is settled, and published only when that is done: a relay that dies repeats one batch.
func TestNextBatchWaitsForSettlement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := newMemStore(), &outboxtest.Publisher{}
		put(t, s, keys(6)...)
		fetches, failing := 0, true
		s.fail = func(method string) error { // called with the store locked
			if method == "Fetch" {
				fetches++
			}
			if method == "Settle" && failing {
				return errDown
			}
			return nil
		}
		r := outbox.NewRelay(s, p, outbox.RelayConfig{Batch: 2, PollMax: time.Minute, Lease: time.Hour})
		stop := run(t, r)
		after(time.Minute)
		s.mu.Lock()
		require.Equal(t, 2, fetches, "one batch is being settled, one read ahead")
		failing = false
		s.mu.Unlock()
		require.Equal(t, 2, taken(p), "published before the batch ahead of it was settled")
		after(5 * time.Minute)
		require.Empty(t, s.records)
		require.Equal(t, 6, taken(p))
		stop()
	})
}

// Nothing that was read ahead is published under leases that have changed hands since.
func TestBatchReadAheadIsDroppedWithItsLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := newMemStore(), &outboxtest.Publisher{}
		put(t, s, keys(400)...)
		slow := publisherFunc(func(ctx context.Context, msgs ...pubsub.Message) error {
			<-time.After(100 * time.Millisecond)
			return p.Publish(ctx, msgs...)
		})
		cfg := outbox.RelayConfig{Batch: 10, Lease: time.Second}
		stop := run(t, outbox.NewRelay(s, slow, cfg))
		after(350 * time.Millisecond)
		stopSecond := run(t, outbox.NewRelay(s, slow, cfg)) // the first gives it half its buckets, with a batch read ahead
		after(time.Minute)
		require.Empty(t, s.records)
		require.Equal(t, 400, taken(p), "nothing is published twice")
		stop()
		stopSecond()
	})
}

func TestNotifyWakesAndPollBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := newMemStore(), &outboxtest.Publisher{}
		r := outbox.NewRelay(s, p, outbox.RelayConfig{})
		stop := run(t, r)
		after(time.Minute + 100*time.Millisecond) // it has slowed down
		require.Less(t, s.calls, 200)

		ob := outbox.New(s, outbox.Config{}, outbox.WithRelay(r))
		require.NoError(t, ob.InTx(t.Context(), func(ctx context.Context, tx *memTx) error {
			return ob.Publish(ctx, tx, pubsub.Message{Topic: "t"})
		}))
		synctest.Wait() // no time passes
		require.Equal(t, 1, taken(p))

		after(time.Minute)
		put(t, s, "unannounced")
		after(time.Second)
		require.Equal(t, 2, taken(p))
		stop()
	})
}

// One key, each message of which takes a third of the lease to publish, beside a second relay that would take over what expires.
func TestLeasesAreRenewedWhilePublishing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := newMemStore(), &outboxtest.Publisher{}
		slow := publisherFunc(func(ctx context.Context, msgs ...pubsub.Message) error {
			<-time.After(3 * time.Second)
			return p.Publish(ctx, msgs...)
		})
		for range 20 {
			put(t, s, "hot")
		}
		first := outbox.NewRelay(s, slow, outbox.RelayConfig{})
		stop := run(t, first)
		after(time.Second)
		second := outbox.NewRelay(s, slow, outbox.RelayConfig{})
		stop2 := run(t, second)
		after(2 * time.Minute)
		require.Equal(t, 20, taken(p))
		require.Zero(t, first.Stats().Fenced)
		require.Equal(t, outbox.Buckets/2, second.Stats().Buckets)
		stop()
		stop2()
	})
}

// Pauses far longer than the lease, of an idle relay and of one whose publisher fails: the leases are renewed in time, so that a second
// relay takes nothing but its share, and the publisher is not asked the more often.
func TestLeasesAreRenewedInPausesLongerThanTheLease(t *testing.T) {
	for name, err := range map[string]error{"idle": nil, "publisher down": errDown} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, p := newMemStore(), &outboxtest.Publisher{}
				p.Refuse(func(pubsub.Message) error { return err })
				var errs []error
				r := outbox.NewRelay(s, p, outbox.RelayConfig{PollMax: time.Hour, Batch: 1}, outbox.OnError(func(err error) { errs = append(errs, err) }))
				put(t, s, keys(2000)...) // each would be tried in turn
				stop := run(t, r)
				after(3 * time.Hour) // the pause has grown to PollMax
				calls, epochs := p.Calls(), s.epochs()
				for range 100 {
					after(35 * time.Second)
					alive, err := s.Lease(t.Context(), "other", time.Second)
					require.NoError(t, err)
					require.Equal(t, outbox.Buckets/2, alive.Share, "the relay is known as alive")
					require.Zero(t, alive.Count(), "nothing had run out")
				}
				require.Equal(t, epochs, s.epochs(), "every bucket is still under its first lease")
				require.LessOrEqual(t, p.Calls(), calls+1)
				require.Empty(t, errs)
				stop()
			})
		})
	}
}

// More relays than buckets: those in excess wait, and take over when others leave.
func TestMoreRelaysThanBuckets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := newMemStore(), &outboxtest.Publisher{}
		var stops []func()
		var relays []*outbox.Relay
		for range outbox.Buckets + 6 {
			relays = append(relays, outbox.NewRelay(s, p, outbox.RelayConfig{}))
			stops = append(stops, run(t, relays[len(relays)-1]))
		}
		after(30 * time.Second)
		holding := 0
		for _, r := range relays {
			require.LessOrEqual(t, r.Stats().Buckets, 1)
			holding += r.Stats().Buckets
		}
		require.Equal(t, outbox.Buckets, holding)
		for _, stop := range stops[:outbox.Buckets] {
			stop()
		}
		put(t, s, keys(200)...)
		after(15 * time.Second)
		require.Equal(t, 200, taken(p))
		for _, stop := range stops[outbox.Buckets:] {
			stop()
		}
	})
}

func TestRunTwiceIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := outbox.NewRelay(newMemStore(), &outboxtest.Publisher{}, outbox.RelayConfig{Name: "mine"})
		stop := run(t, r)
		synctest.Wait()
		require.ErrorContains(t, r.Run(t.Context()), `outbox: relay "mine": Run is already running`)
		stop()
		run(t, r)() // again, after the first has ended
	})
}
