package natspubsub_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/nats/natsembed"
	"github.com/backstay-go/backstay/backend/nats/natspubsub"
	"github.com/backstay-go/backstay/pubsub"
)

// ackPending asks the server how many messages of group g have been delivered and not acknowledged.
func ackPending(t *testing.T, conn *nats.Conn, stream string) int {
	t.Helper()
	js, err := jetstream.New(conn)
	require.NoError(t, err)
	c, err := js.Consumer(t.Context(), stream, "g")
	require.NoError(t, err)
	return c.CachedInfo().NumAckPending
}

// Settle does not wait for the server each time. An acknowledgement that was lost with the connection is sent again on
// the next one: the message does not come again when its lease, here of minutes, is over.
func TestGuaranteeAcksOutliveTheConnection(t *testing.T) {
	srv := embedded(t, natsembed.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	p := newProxy(t, srv.URL()[len("nats://"):])
	direct := dial(t, srv.URL())
	publisher := newDriver(t, direct, natspubsub.Config{Prefix: "p"})
	d := newDriver(t, dial(t, p.url()), natspubsub.Config{Prefix: "p"})
	r := open(t, d, func(s *pubsub.Subscription) { s.Lease = 5 * time.Minute })
	lost := 0
	for i := 0; i < 100 && lost < 3; i++ {
		publish(t, publisher, message(fmt.Sprint(i, "a"), ""), message(fmt.Sprint(i, "b"), ""))
		var ds []pubsub.Delivery
		for len(ds) < 2 {
			ds = append(ds, receive(t, r, 2-len(ds))...)
		}
		settle(t, r, pubsub.Ack, ds[0]) // after a pause it is confirmed
		p.stall()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		err := r.Settle(ctx, []pubsub.Verdict{{Token: ds[1].Token, Kind: pubsub.Ack}})
		cancel()
		p.cut(true)
		p.resume()
		if err != nil { // this machine took so long in between that the second one waited for the server
			require.ErrorIs(t, err, pubsub.ErrInDoubt)
			settle(t, r, pubsub.Ack, ds[1])
			continue
		}
		lost++
		// nobody settles any more: Receive sends it again
		ctx, cancel = context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			_, err := r.Receive(ctx, 1)
			ended <- err
		}()
		require.Eventually(t, func() bool { return ackPending(t, direct, "p~t") == 0 }, 30*time.Second, 10*time.Millisecond)
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
	}
	require.Positive(t, lost, "never were two calls of Settle quick enough")
}

// What Settle has not confirmed, Close does, or says that it could not.
func TestGuaranteeCloseConfirmsAcks(t *testing.T) {
	srv := embedded(t, natsembed.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	p := newProxy(t, srv.URL()[len("nats://"):])
	direct := dial(t, srv.URL())
	d := newDriver(t, dial(t, p.url()), natspubsub.Config{Prefix: "p"})
	for i := range 100 {
		publish(t, d, message(fmt.Sprint(i, "a"), ""), message(fmt.Sprint(i, "b"), ""))
		r, err := d.Open(t.Context(), pubsub.Subscription{Topic: "t", Group: "g", Start: "start", Lease: 5 * time.Minute})
		require.NoError(t, err)
		var ds []pubsub.Delivery
		for len(ds) < 2 {
			ds = append(ds, receive(t, r, 2-len(ds))...)
		}
		settle(t, r, pubsub.Ack, ds[0])
		p.stall()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		err = r.Settle(ctx, []pubsub.Verdict{{Token: ds[1].Token, Kind: pubsub.Ack}})
		cancel()
		if err == nil {
			require.ErrorIs(t, r.Close(), pubsub.ErrInDoubt)
			p.resume()
			break
		}
		require.ErrorIs(t, err, pubsub.ErrInDoubt) // this machine took so long in between that it waited for the server
		p.resume()
		settle(t, r, pubsub.Ack, ds[1])
		require.NoError(t, r.Close())
		require.Less(t, i, 99, "never were two calls of Settle quick enough")
	}
	require.Eventually(t, func() bool { return ackPending(t, direct, "p~t") == 0 }, 10*time.Second, 10*time.Millisecond)
}

// An unordered group gets what waits for its time from the server, too. Members drop it, whole requests full of it, and
// handle each message when it is due, once.
func TestDelayedMessagesAreDroppedUntilDue(t *testing.T) {
	conn := inProcess(t).connect(t)
	d := newDriver(t, conn, natspubsub.Config{Prefix: "p"})
	r := open(t, d, nil)
	var msgs []pubsub.Message
	due := time.Now().Add(3 * time.Second)
	for i := range 300 {
		m := message(fmt.Sprint(i), "")
		m.DeliverAt = due
		msgs = append(msgs, m)
	}
	publish(t, d, append(msgs, message("now", ""))...)
	seen := make(map[string]int)
	for len(seen) < len(msgs)+1 {
		for _, x := range receive(t, r, 10) {
			seen[x.ID]++
			if x.ID != "now" {
				require.False(t, time.Now().Before(due), "%s came too early", x.ID)
			}
			settle(t, r, pubsub.Ack, x)
		}
	}
	for id, n := range seen {
		require.Equal(t, 1, n, id)
	}
	require.NoError(t, r.Close())
	require.Eventually(t, func() bool { return ackPending(t, conn, "p~t") == 0 }, 10*time.Second, 10*time.Millisecond)
}
