package pubsub_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/pubsub/mempubsub"
)

// tampered is a working broker behind a connection that a test disturbs.
type tampered struct {
	*mempubsub.Driver
	publish func(ctx context.Context, msgs []pubsub.Message) []error
	settle  func([]pubsub.Verdict) error

	mu   sync.Mutex
	sent []pubsub.Message // accepted ones, in order
	left int              // receivers that were open when the driver was closed
}

func newTampered() *tampered {
	return &tampered{Driver: mempubsub.New(mempubsub.Config{})}
}

// Capabilities are those of the broker; a disturbed Publish need not obey its context.
func (d *tampered) Capabilities() pubsub.Capabilities {
	caps := d.Driver.Capabilities()
	caps.PublishObeysContext = false
	return caps
}

func (d *tampered) Publish(ctx context.Context, msgs []pubsub.Message) []error {
	if d.publish != nil {
		if errs := d.publish(ctx, msgs); errs != nil {
			return d.some(ctx, msgs, errs)
		}
	}
	return d.some(ctx, msgs, make([]error, len(msgs)))
}

// some publishes the messages that have no error.
func (d *tampered) some(ctx context.Context, msgs []pubsub.Message, errs []error) []error {
	for i, err := range errs {
		if err == nil {
			if failed := d.Driver.Publish(ctx, msgs[i:i+1]); failed != nil {
				errs[i] = failed[0]
				continue
			}
			d.mu.Lock()
			d.sent = append(d.sent, msgs[i])
			d.mu.Unlock()
		}
	}
	return errs
}

func (d *tampered) Close() error {
	d.left = d.Stats().Receivers
	return d.Driver.Close()
}

func (d *tampered) Open(ctx context.Context, s pubsub.Subscription) (pubsub.Receiver, error) {
	r, err := d.Driver.Open(ctx, s)
	return &tamperedReceiver{r, d}, err
}

type tamperedReceiver struct {
	pubsub.Receiver
	d *tampered
}

func (r *tamperedReceiver) Settle(ctx context.Context, verdicts []pubsub.Verdict) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if r.d.settle != nil {
		if err := r.d.settle(verdicts); err != nil {
			return err
		}
	}
	return r.Receiver.Settle(ctx, verdicts)
}

// redriven are the accepted messages that Redrive has sent.
func (d *tampered) redriven() []pubsub.Message {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []pubsub.Message
	for _, m := range d.sent {
		if m.Topic == "t" {
			out = append(out, m)
		}
	}
	return out
}

func ids(msgs []pubsub.Message) []string {
	var all []string
	for _, m := range msgs {
		all = append(all, m.ID)
	}
	return all
}

// withDead makes a bus on d with n dead letters of group g of topic t: number i has ID i and the given key.
func withDead(t *testing.T, d pubsub.Driver, n int, key func(i int) string) *pubsub.Bus {
	t.Helper()
	bus := pubsub.New(d)
	c, err := bus.Open(t.Context(), pubsub.Subscription{Topic: "t", Group: "g"})
	require.NoError(t, err)
	require.NoError(t, c.Close())
	for i := range n {
		require.NoError(t, bus.Publish(t.Context(), pubsub.Message{
			ID: fmt.Sprint(i), Topic: pubsub.DeadLetterTopic("t", "g"), Key: key(i), Payload: []byte{byte(i)}, Time: time.Unix(int64(i), 0),
			Header: pubsub.Header{
				"own": "kept", pubsub.HeaderReason: "attempts", pubsub.HeaderAttempts: "10", pubsub.HeaderFirstError: "a",
				pubsub.HeaderLastError: "b", pubsub.HeaderTopic: "t", pubsub.HeaderGroup: "g", pubsub.HeaderRedrive: "g/earlier",
			},
		}))
	}
	return bus
}

func noKey(int) string       { return "" }
func threeKeys(i int) string { return fmt.Sprint(i % 3) }
func sameKey(int) string     { return "k" }

func TestRedriveMovesDeadLettersBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newTampered()
		bus := withDead(t, d, 200, threeKeys)
		begun := time.Now()
		n, err := bus.Redrive(t.Context(), "t", "g", 0)
		require.NoError(t, err)
		require.Equal(t, 200, n)
		require.Equal(t, 2*time.Second, time.Since(begun), "the wait for one more")
		got := d.redriven()
		require.Len(t, got, 200)
		names := make(map[string]bool)
		for _, m := range got {
			var i int
			_, _ = fmt.Sscan(m.ID, &i)
			require.Regexp(t, "^g/[0-9a-f]{32}$", m.Header[pubsub.HeaderRedrive])
			names[m.Header[pubsub.HeaderRedrive]] = true
			require.Equal(t, pubsub.Message{
				ID: fmt.Sprint(i), Topic: "t", Key: threeKeys(i), Payload: []byte{byte(i)}, Time: time.Unix(int64(i), 0),
				Header: pubsub.Header{"own": "kept", pubsub.HeaderRedrive: m.Header[pubsub.HeaderRedrive]},
			}, m)
		}
		require.Len(t, names, 200, "every redrive has a name of its own")

		begun = time.Now()
		n, err = bus.Redrive(t.Context(), "t", "g", 0)
		require.NoError(t, err)
		require.Zero(t, n, "they were acknowledged")
		require.Equal(t, 5*time.Second, time.Since(begun), "the wait for the first")
		require.NoError(t, bus.Close())
	})
}

func TestRedriveStopsAtItsLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newTampered()
		bus := withDead(t, d, 100, noKey)
		for _, limit := range []int{1, 9, 80} {
			begun := time.Now()
			n, err := bus.Redrive(t.Context(), "t", "g", limit)
			require.NoError(t, err)
			require.Equal(t, limit, n)
			require.Zero(t, time.Since(begun))
		}
		n, err := bus.Redrive(t.Context(), "t", "g", 80)
		require.NoError(t, err)
		require.Equal(t, 10, n)
		require.Len(t, d.redriven(), 100)
		require.NoError(t, bus.Close())
	})
}

// Whatever fails, the dead letters of a key arrive in order, seen over first occurrences, and none is lost.
func TestRedriveKeepsTheOrderOfAKeyUnderFailures(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			d, rnd := newTampered(), rand.New(rand.NewPCG(seed, 1))
			bus := withDead(t, d, 150, threeKeys)
			d.publish = func(_ context.Context, msgs []pubsub.Message) []error {
				errs := make([]error, len(msgs))
				for i := range errs {
					if rnd.IntN(10) == 0 {
						errs[i] = errBoom
					}
				}
				return errs
			}
			d.settle = func([]pubsub.Verdict) error {
				if rnd.IntN(10) == 0 {
					return errBoom
				}
				return nil
			}
			moved, failures := 0, 0
			for moved < 150 {
				n, err := bus.Redrive(t.Context(), "t", "g", 0)
				moved += n
				if failures++; err == nil {
					break
				}
				require.ErrorIs(t, err, errBoom)
			}
			require.Equal(t, 150, moved)
			require.Greater(t, failures, 1)
			require.GreaterOrEqual(t, len(d.redriven()), 150)
			next := []int{0, 1, 2}
			for _, m := range d.redriven() {
				var i int
				_, _ = fmt.Sscan(m.ID, &i)
				require.LessOrEqual(t, i, next[i%3], "key %s", m.Key)
				next[i%3] = max(next[i%3], i+3)
			}
			require.Equal(t, []int{150, 151, 152}, next)
			require.NoError(t, bus.Close())
		})
	}
}

func TestRedriveAcknowledgesNothingThatWasNotAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newTampered()
		bus := withDead(t, d, 5, noKey)
		d.publish = func(_ context.Context, msgs []pubsub.Message) []error {
			errs := make([]error, len(msgs))
			errs[1], errs[3] = errBoom, pubsub.ErrInDoubt
			return errs
		}
		n, err := bus.Redrive(t.Context(), "t", "g", 0)
		require.ErrorIs(t, err, errBoom)
		require.ErrorIs(t, err, pubsub.ErrInDoubt)
		var pe *pubsub.PublishError
		require.ErrorAs(t, err, &pe)
		require.Equal(t, 3, n)
		d.publish = nil
		n, err = bus.Redrive(t.Context(), "t", "g", 0)
		require.NoError(t, err)
		require.Equal(t, 2, n)
		require.Equal(t, []string{"0", "2", "4", "1", "3"}, ids(d.redriven()))

		d.publish = func(context.Context, []pubsub.Message) []error { return nil }
		require.NoError(t, bus.Close())
	})
}

func TestRedriveRepeatsWhatACrashLeftUnacknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newTampered()
		bus := withDead(t, d, 3, noKey)
		d.settle = func([]pubsub.Verdict) error { return errBoom }
		n, err := bus.Redrive(t.Context(), "t", "g", 0)
		require.Zero(t, n)
		require.ErrorIs(t, err, errBoom)
		require.ErrorContains(t, err, "3 messages were published and not acknowledged")
		d.settle = nil
		n, err = bus.Redrive(t.Context(), "t", "g", 0)
		require.NoError(t, err)
		require.Equal(t, 3, n)
		got := d.redriven()
		require.Equal(t, []string{"0", "1", "2", "0", "1", "2"}, ids(got))
		require.NotEqual(t, pubsub.DedupID(got[0]), pubsub.DedupID(got[3]))
		require.NoError(t, bus.Close())
	})
}

func TestTwoRedrivesShareTheWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newTampered()
		d.publish = func(context.Context, []pubsub.Message) []error { take(10 * time.Millisecond); return nil }
		bus := withDead(t, d, 300, func(i int) string { return fmt.Sprint(i) })
		var moved [2]int
		var wg sync.WaitGroup
		for i := range moved {
			wg.Go(func() {
				n, err := bus.Redrive(t.Context(), "t", "g", 0)
				if err != nil {
					t.Error(err)
				}
				moved[i] = n
			})
		}
		wg.Wait()
		require.Equal(t, 300, moved[0]+moved[1])
		require.Positive(t, moved[0])
		require.Positive(t, moved[1])
		require.Len(t, d.redriven(), 300, "none twice")
		require.NoError(t, bus.Close())
	})
}

func TestRedriveExtendsLeasesWhileItPublishes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newTampered()
		bus := withDead(t, d, 40, sameKey)
		d.publish = func(context.Context, []pubsub.Message) []error { take(7 * time.Second); return nil } // 40 take 9 leases
		n, err := bus.Redrive(t.Context(), "t", "g", 0)
		require.NoError(t, err)
		require.Equal(t, 40, n)
		require.Len(t, d.redriven(), 40, "none twice")
		require.Zero(t, d.Stats().LeasesExpired)
		require.NoError(t, bus.Close())
	})
}

func TestRedriveGivesUpOnAPublishThatHangsBeforeItsLeasesEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newTampered()
		bus := withDead(t, d, 2, sameKey)
		release := make(chan struct{})
		d.publish = func(context.Context, []pubsub.Message) []error { <-release; return []error{errBoom} }
		n, err := bus.Redrive(t.Context(), "t", "g", 0)
		require.Zero(t, n)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Zero(t, d.Stats().LeasesExpired)
		close(release)
		require.NoError(t, bus.Close())
	})
}

func TestRedriveEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newTampered()
		bus := withDead(t, d, 4, sameKey)
		ctx, cancel := context.WithCancel(t.Context())
		d.publish = func(_ context.Context, msgs []pubsub.Message) []error {
			if msgs[0].ID == "1" {
				cancel()
			}
			return nil
		}
		n, err := bus.Redrive(ctx, "t", "g", 0)
		require.ErrorIs(t, err, context.Canceled)
		require.Equal(t, 2, n, "what was accepted is acknowledged")
		d.publish = nil
		n, err = bus.Redrive(t.Context(), "t", "g", 0)
		require.NoError(t, err)
		require.Equal(t, 2, n)
		require.Equal(t, []string{"0", "1", "2", "3"}, ids(d.redriven()))

		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = bus.Redrive(ctx, "t", "g", 0)
		require.ErrorIs(t, err, context.DeadlineExceeded, "not drained: it could not wait that long")
		require.NoError(t, bus.Close())
	})
}

func TestCloseEndsARedrive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newTampered()
		bus := withDead(t, d, 100, sameKey)
		d.publish = func(ctx context.Context, msgs []pubsub.Message) []error {
			select {
			case <-ctx.Done():
				return slices.Repeat([]error{ctx.Err()}, len(msgs))
			case <-time.After(time.Second):
				return nil
			}
		}
		begun := time.Now()
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			n, err := bus.Redrive(t.Context(), "t", "g", 0)
			if n != 10 || !errors.Is(err, pubsub.ErrClosed) {
				t.Errorf("moved %d and returned %v", n, err)
			}
		}()
		take(10*time.Second + time.Millisecond)
		require.NoError(t, bus.Close())
		require.Zero(t, d.left, "Close waits for the redrive before it closes the driver")
		<-ended
		require.Less(t, time.Since(begun), 11*time.Second)
		_, err := bus.Redrive(t.Context(), "t", "g", 0)
		require.ErrorIs(t, err, pubsub.ErrClosed)
	})
}

func TestRedriveRefusals(t *testing.T) {
	bus := pubsub.New(newScripted(pubsub.Capabilities{ReplayFromStart: true}))
	_, err := bus.Redrive(t.Context(), "two words", "g", 0)
	require.ErrorContains(t, err, "Topic")
	_, err = bus.Redrive(t.Context(), "t", "", 0)
	require.ErrorContains(t, err, "Group")
	_, err = pubsub.New(newScripted(pubsub.Capabilities{})).Redrive(t.Context(), "t", "g", 0)
	require.ErrorIs(t, err, pubsub.ErrUnsupported)

	d := newScripted(pubsub.Capabilities{ReplayFromStart: true})
	d.receiveErr <- errBoom
	_, err = pubsub.New(d).Redrive(t.Context(), "t", "g", 0)
	require.ErrorIs(t, err, errBoom)
	require.ErrorContains(t, err, "t.dead.g")
	require.Equal(t, 1, d.closed)
	d.deliveries <- nil // a driver that breaks its promise must not make it spin
	_, err = pubsub.New(d).Redrive(t.Context(), "t", "g", 0)
	require.ErrorContains(t, err, "delivered nothing")
}

func TestRedriveAsksForOrderWhereThereIsSome(t *testing.T) {
	for _, ordered := range []bool{false, true} {
		d := &opener{scripted: newScripted(pubsub.Capabilities{ReplayFromStart: true, Ordered: ordered})}
		d.receiveErr <- errBoom
		_, err := pubsub.New(d).Redrive(t.Context(), "t", "g", 0)
		require.ErrorIs(t, err, errBoom)
		s := d.opened[0]
		require.Equal(t, []any{"t.dead.g", "redrive", "start", ordered}, []any{s.Topic, s.Group, s.Start, s.Ordered})
		require.Positive(t, s.LaneDepth, "the defaults are filled in")
	}
}
