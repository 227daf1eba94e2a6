package natspubsub_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/nats/natspubsub"
	"github.com/backstay-go/backstay/pubsub"
)

func TestReceiveAndAck(t *testing.T) {
	onAll(t, func(t *testing.T, conn *nats.Conn) {
		d := newDriver(t, conn, natspubsub.Config{})
		m := message("id-1", "key")
		m.Header = pubsub.Header{"a": "b"}
		publish(t, d, m)
		r := open(t, d, nil)
		ds := receive(t, r, 5)
		m.Attempt = 1
		require.Equal(t, m, ds[0].Message)
		settle(t, r, pubsub.Ack, ds...)
		receiveNone(t, r, 200*time.Millisecond)
		require.Equal(t, natspubsub.Stats{Published: 1, Received: 1}, d.Stats())
	})
}

// The ack-wait trap: what is fetched and not asked for waits with its lease running, and runs twice.
func TestGuaranteeHoldsNoMoreThanAskedFor(t *testing.T) {
	onAll(t, func(t *testing.T, conn *nats.Conn) {
		d := newDriver(t, conn, natspubsub.Config{})
		var msgs []pubsub.Message
		for i := range 20 {
			msgs = append(msgs, message(fmt.Sprint(i), ""))
		}
		publish(t, d, msgs...)
		one, two := open(t, d, nil), open(t, d, nil)
		taken := 0
		for taken < 3 {
			taken += len(receive(t, one, 3-taken))
		}
		for taken < 20 { // all others are there for the other member, at once
			taken += len(receive(t, two, 20))
		}
	})
}

func TestNackRedeliversAfterDelay(t *testing.T) {
	onAll(t, func(t *testing.T, conn *nats.Conn) {
		d := newDriver(t, conn, natspubsub.Config{})
		publish(t, d, message("1", ""))
		r := open(t, d, nil)
		ds := receive(t, r, 1)
		settle(t, r, pubsub.Nack, ds...)
		ds = receive(t, r, 1)
		require.GreaterOrEqual(t, ds[0].Attempt, 2)
		attempt, begin := ds[0].Attempt, time.Now()
		require.NoError(t, r.Settle(soon(t), []pubsub.Verdict{{Token: ds[0].Token, Kind: pubsub.Nack, Delay: 300 * time.Millisecond}}))
		ds = receive(t, r, 1)
		require.GreaterOrEqual(t, time.Since(begin), 300*time.Millisecond)
		require.Greater(t, ds[0].Attempt, attempt)
	})
}

func TestGuaranteeLeaseRunsOutAndExtends(t *testing.T) {
	onAll(t, func(t *testing.T, conn *nats.Conn) {
		steadily(t, func(t *testing.T, lease time.Duration, stood func(time.Duration)) string {
			d := newDriver(t, conn, natspubsub.Config{})
			publish(t, d, message("1", ""))
			shorter := func(s *pubsub.Subscription) { s.Lease = lease }
			other, r := open(t, d, shorter), open(t, d, shorter)
			ds := receive(t, r, 1)
			if lost := extended(t, r, ds, other, lease, stood); len(lost) > 0 {
				return fmt.Sprintf("%s came to another member, whose lease was extended", ids(lost))
			}
			again := receive(t, other, 1)
			require.Equal(t, ids(ds), ids(again))
			if !strings.HasPrefix(conn.ConnectedServerVersion(), "2.9.") { // which sometimes counts it as the first
				require.GreaterOrEqual(t, again[0].Attempt, 2)
			}
			require.NotEqual(t, ds[0].Token, again[0].Token)
			settle(t, r, pubsub.Extend, ds...) // of a lost lease: harmless
			settle(t, other, pubsub.Ack, again...)
			settle(t, other, pubsub.Ack, again...)
			return ""
		})
	})
}

// extended has r extend the leases of ds for longer than one lease, and returns what other gets meanwhile.
func extended(t *testing.T, r pubsub.Receiver, ds []pubsub.Delivery, other pubsub.Receiver, lease time.Duration, stood func(time.Duration)) []pubsub.Delivery {
	t.Helper()
	last := time.Now()
	for begun := last; time.Since(begun) < lease+lease/2; last = time.Now() {
		lost := arrivals(t, other, lease/8)
		settle(t, r, pubsub.Extend, ds...)
		stood(time.Since(last) - lease/8)
		if len(lost) > 0 {
			return lost
		}
	}
	return nil
}

// What a receiver has fetched ahead of a lane stays its own while its handlers are busy with the lane.
func TestGuaranteeFetchedAheadKeepsLease(t *testing.T) {
	onAll(t, func(t *testing.T, conn *nats.Conn) {
		steadily(t, func(t *testing.T, lease time.Duration, stood func(time.Duration)) string {
			d := newDriver(t, conn, natspubsub.Config{Lanes: 8})
			for i := range 32 {
				publish(t, d, message(fmt.Sprint(i), "k"))
			}
			ordered := func(s *pubsub.Subscription) { s.Ordered, s.Lease = true, lease }
			other, r := open(t, d, ordered), open(t, d, ordered)
			begun := time.Now()
			first := receive(t, r, 1) // the next ones arrive as well
			stood(time.Since(begun) - lease/8)
			if lost := extended(t, r, first, other, lease, stood); len(lost) > 0 {
				return fmt.Sprintf("%s came to another member, and the lane was not its", ids(lost))
			}
			for _, x := range receive(t, r, 8) {
				if x.Attempt != 1 {
					return fmt.Sprintf("%s came again", x.ID)
				}
			}
			return ""
		})
	})
}

func TestGuaranteeLaneIsHeldUntilSettled(t *testing.T) {
	onAll(t, func(t *testing.T, conn *nats.Conn) {
		steadily(t, func(t *testing.T, lease time.Duration, stood func(time.Duration)) string {
			d := newDriver(t, conn, natspubsub.Config{})
			publish(t, d, message("1", "k"), message("2", "k"), message("3", "k"))
			ordered := func(s *pubsub.Subscription) { s.Ordered, s.Lease = true, lease }
			a, b := open(t, d, ordered), open(t, d, ordered)
			begun := time.Now()
			three := []string{"1", "2", "3"}
			ds := receiveAll(t, a, 3)
			require.Equal(t, three, ids(ds))
			if got := arrivals(t, b, 200*time.Millisecond); len(got) > 0 {
				stood(time.Since(begun))
				return fmt.Sprintf("%s came while the lane was another member's", ids(got))
			}
			settle(t, a, pubsub.Nack, ds[0])
			stood(time.Since(begun) - lease/8)
			epoch := ds[0].Epoch
			ds = receiveAll(t, a, 3)
			require.Greater(t, ds[0].Epoch, epoch)
			require.Equal(t, three, ids(ds), "the unsettled one comes before later ones")
			require.NoError(t, a.Close()) // gives them back
			require.True(t, ds[0].Stale())
			ds = receiveAll(t, b, 3)
			require.Equal(t, three, ids(ds))
			require.Equal(t, 3, ds[0].Attempt)
			return ""
		})
	})
}

// receiveAll receives n deliveries.
func receiveAll(t *testing.T, r pubsub.Receiver, n int) (all []pubsub.Delivery) {
	t.Helper()
	for len(all) < n {
		all = append(all, receive(t, r, n-len(all))...)
	}
	return all
}

func ids(ds []pubsub.Delivery) []string {
	var out []string
	for _, d := range ds {
		out = append(out, d.ID)
	}
	return out
}

func TestGuaranteeCancelledReceiveGivesBack(t *testing.T) {
	onAll(t, func(t *testing.T, conn *nats.Conn) {
		d := newDriver(t, conn, natspubsub.Config{})
		r, other := open(t, d, nil), open(t, d, nil)
		for i := range 20 { // cut Receive off while messages are on their way
			ctx, cancel := context.WithCancel(t.Context())
			result := make(chan []pubsub.Delivery, 1)
			go func() {
				ds, _ := r.Receive(ctx, 5)
				result <- ds
			}()
			publish(t, d, message(fmt.Sprint(i), ""))
			cancel()
			ds := <-result
			if len(ds) == 0 {
				ds = receive(t, other, 5) // it would not come if it were not given back
				settle(t, other, pubsub.Ack, ds...)
				continue
			}
			settle(t, r, pubsub.Ack, ds...)
		}
	})
}

func TestCloseEndsReceiveAndGivesBack(t *testing.T) {
	onAll(t, func(t *testing.T, conn *nats.Conn) {
		d := newDriver(t, conn, natspubsub.Config{})
		publish(t, d, message("1", ""))
		r := open(t, d, nil)
		receive(t, r, 1)
		ended := make(chan error, 1)
		go func() {
			_, err := r.Receive(context.Background(), 1)
			ended <- err
		}()
		require.NoError(t, r.Close())
		require.ErrorIs(t, <-ended, pubsub.ErrClosed)
		require.NoError(t, r.Close())
		_, err := r.Receive(t.Context(), 1)
		require.ErrorIs(t, err, pubsub.ErrClosed)
		require.GreaterOrEqual(t, receive(t, open(t, d, nil), 1)[0].Attempt, 2)
	})
}

func TestStartEndAndGroups(t *testing.T) {
	onAll(t, func(t *testing.T, conn *nats.Conn) {
		for _, ordered := range []bool{false, true} {
			d := newDriver(t, conn, natspubsub.Config{})
			publish(t, d, message("before", "k"))
			fromEnd := open(t, d, func(s *pubsub.Subscription) { s.Group, s.Start, s.Ordered = "late", "end", ordered })
			fromStart := open(t, d, func(s *pubsub.Subscription) { s.Group, s.Ordered = "early", ordered })
			require.Equal(t, []string{"before"}, ids(receive(t, fromStart, 1)))
			publish(t, d, message("after", "k"))
			require.Equal(t, []string{"after"}, ids(receive(t, fromEnd, 1)))
		}
	})
}

// A group that nobody serves any more keeps its place.
func TestGuaranteeGroupsOutliveReceivers(t *testing.T) {
	onAll(t, func(t *testing.T, conn *nats.Conn) {
		d := newDriver(t, conn, natspubsub.Config{})
		latest := func(s *pubsub.Subscription) { s.Start = "end" }
		require.NoError(t, open(t, d, latest).Close())
		publish(t, d, message("meanwhile", ""))
		require.Equal(t, []string{"meanwhile"}, ids(receive(t, open(t, d, latest), 1)))
	})
}

func TestReceiveFailsWhenTheConsumerIsDeleted(t *testing.T) {
	onAll(t, func(t *testing.T, conn *nats.Conn) {
		d := newDriver(t, conn, natspubsub.Config{})
		_, _, cfg := d.Describe()
		stream := cfg.(natspubsub.Config).Prefix + "~t"
		js, err := jetstream.New(conn)
		require.NoError(t, err)
		r := open(t, d, nil)
		ended := make(chan error, 1)
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
			defer cancel()
			_, err := r.Receive(ctx, 1)
			ended <- err
		}()
		require.Eventually(t, func() bool {
			c, err := js.Consumer(soon(t), stream, "g")
			return err == nil && c.CachedInfo().NumWaiting == 1
		}, patience, 10*time.Millisecond)
		require.NoError(t, js.DeleteConsumer(soon(t), stream, "g"))
		require.ErrorIs(t, <-ended, jetstream.ErrConsumerNotFound)
	})
}

// The server does not answer a request to a consumer that is gone already.
func TestReceiveFailsWhenTheStreamIsDeletedBefore(t *testing.T) {
	conn := inProcess(t).connect(t)
	d := newDriver(t, conn, natspubsub.Config{Prefix: "gone"})
	r := open(t, d, nil)
	js, err := jetstream.New(conn)
	require.NoError(t, err)
	require.NoError(t, js.DeleteStream(soon(t), "gone~t"))
	_, err = r.Receive(soon(t), 1)
	require.ErrorIs(t, err, jetstream.ErrStreamNotFound)
}

// An idle Receive costs the server one request in five seconds, not a poll loop.
func TestIdleReceiveIsQuiet(t *testing.T) {
	conn := inProcess(t).connect(t)
	d := newDriver(t, conn, natspubsub.Config{})
	r := open(t, d, nil)
	before, begun := conn.Stats().OutMsgs, time.Now()
	receiveNone(t, r, time.Second)
	sent := conn.Stats().OutMsgs - before
	require.LessOrEqual(t, sent, uint64(2+time.Since(begun)/(5*time.Second)))
}

func TestSettleRefusesForeignToken(t *testing.T) {
	d := newDriver(t, inProcess(t).connect(t), natspubsub.Config{})
	err := open(t, d, nil).Settle(t.Context(), []pubsub.Verdict{{Token: 7, Kind: pubsub.Ack}})
	require.ErrorContains(t, err, "token 7")
}

func TestReceiveAndSettleFailOnClosedConnection(t *testing.T) {
	conn := inProcess(t).connect(t)
	d := newDriver(t, conn, natspubsub.Config{Prefix: "closed"})
	publish(t, d, message("1", ""))
	r := open(t, d, nil)
	ds := receive(t, r, 1)
	ended := make(chan error, 1)
	go func() {
		_, err := r.Receive(context.Background(), 1)
		ended <- err
	}()
	conn.Close()
	require.ErrorIs(t, <-ended, nats.ErrConnectionClosed)
	require.ErrorIs(t, r.Settle(t.Context(), []pubsub.Verdict{{Token: ds[0].Token, Kind: pubsub.Ack}}), nats.ErrConnectionClosed)
}
