package natspubsub_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/nats/natspubsub"
	"github.com/backstay-go/backstay/pubsub"
)

// onAll runs test on every server.
func onAll(t *testing.T, test func(t *testing.T, conn *nats.Conn)) {
	for _, b := range brokers(t) {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			test(t, b.connect(t))
		})
	}
}

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
		require.Equal(t, 2, ds[0].Attempt)
		begin := time.Now()
		require.NoError(t, r.Settle(t.Context(), []pubsub.Verdict{{Token: ds[0].Token, Kind: pubsub.Nack, Delay: 300 * time.Millisecond}}))
		ds = receive(t, r, 1)
		require.GreaterOrEqual(t, time.Since(begin), 300*time.Millisecond)
		require.Equal(t, 3, ds[0].Attempt)
	})
}

func TestGuaranteeLeaseRunsOutAndExtends(t *testing.T) {
	onAll(t, func(t *testing.T, conn *nats.Conn) {
		d := newDriver(t, conn, natspubsub.Config{})
		publish(t, d, message("1", ""))
		shorter := func(s *pubsub.Subscription) { s.Lease = time.Second }
		r, other := open(t, d, shorter), open(t, d, shorter)
		ds := receive(t, r, 1)
		for range 8 { // two seconds
			receiveNone(t, other, 250*time.Millisecond)
			settle(t, r, pubsub.Extend, ds...)
		}
		again := receive(t, other, 1)
		require.Equal(t, 2, again[0].Attempt)
		require.NotEqual(t, ds[0].Token, again[0].Token)
		settle(t, r, pubsub.Extend, ds...) // of a lost lease: harmless
		settle(t, other, pubsub.Ack, again...)
		settle(t, other, pubsub.Ack, again...)
	})
}

// What a receiver has fetched ahead from its lanes keeps its lease while handlers are busy.
func TestGuaranteeFetchedAheadKeepsLease(t *testing.T) {
	onAll(t, func(t *testing.T, conn *nats.Conn) {
		d := newDriver(t, conn, natspubsub.Config{Lanes: 8})
		for i := range 32 {
			publish(t, d, message(fmt.Sprint(i), fmt.Sprint("key", i)))
		}
		ordered := func(s *pubsub.Subscription) { s.Ordered, s.Lease = true, time.Second }
		r := open(t, d, ordered)
		first := receive(t, r, 1) // the other lanes' first messages arrive as well
		other := open(t, d, ordered)
		for range 8 {
			receiveNone(t, other, 250*time.Millisecond)
			settle(t, r, pubsub.Extend, first...)
		}
		for _, x := range receive(t, r, 8) {
			require.Equal(t, 1, x.Attempt)
		}
	})
}

func TestGuaranteeLaneIsHeldUntilSettled(t *testing.T) {
	onAll(t, func(t *testing.T, conn *nats.Conn) {
		d := newDriver(t, conn, natspubsub.Config{})
		publish(t, d, message("1", "k"), message("2", "k"), message("3", "k"))
		// A short lease, since server 2.9.10 forgets a Nack while the request of the closed member is in its queue.
		ordered := func(s *pubsub.Subscription) { s.Ordered, s.Lease = true, 2*time.Second }
		a, b := open(t, d, ordered), open(t, d, ordered)
		ds := receive(t, a, 10)
		require.Equal(t, []string{"1"}, ids(ds))
		receiveNone(t, b, 200*time.Millisecond)
		settle(t, a, pubsub.Nack, ds...)
		epoch := ds[0].Epoch
		ds = receive(t, a, 10)
		require.Greater(t, ds[0].Epoch, epoch)
		require.Equal(t, []string{"1"}, ids(ds), "the unsettled one comes before later ones")
		require.NoError(t, a.Close()) // gives it back
		var first []string
		for len(first) < 3 {
			ds = receive(t, b, 10)
			require.Len(t, ds, 1)
			settle(t, b, pubsub.Ack, ds...)
			if !slices.Contains(first, ds[0].ID) {
				first = append(first, ds[0].ID)
			}
		}
		require.Equal(t, []string{"1", "2", "3"}, first)
	})
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
				ds = receive(t, other, 5) // lease 30s: it would not come if it were not given back
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
		require.Equal(t, 2, receive(t, open(t, d, nil), 1)[0].Attempt)
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
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			_, err := r.Receive(ctx, 1)
			ended <- err
		}()
		require.Eventually(t, func() bool {
			c, err := js.Consumer(t.Context(), stream, "g")
			return err == nil && c.CachedInfo().NumWaiting == 1
		}, 10*time.Second, 10*time.Millisecond)
		require.NoError(t, js.DeleteConsumer(t.Context(), stream, "g"))
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
	require.NoError(t, js.DeleteStream(t.Context(), "gone~t"))
	_, err = r.Receive(t.Context(), 1)
	require.ErrorIs(t, err, jetstream.ErrStreamNotFound)
}

// An idle Receive costs the server one request in five seconds, not a poll loop.
func TestIdleReceiveIsQuiet(t *testing.T) {
	conn := inProcess(t).connect(t)
	d := newDriver(t, conn, natspubsub.Config{})
	r := open(t, d, nil)
	before := conn.Stats().OutMsgs
	receiveNone(t, r, time.Second)
	require.LessOrEqual(t, conn.Stats().OutMsgs-before, uint64(2))
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
