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

func ordered(s *pubsub.Subscription) { s.Ordered = true }

// What is acknowledged behind a message that is not stays so when the lane goes to another member, and when the server
// starts again.
func TestGuaranteeOrderlyHandoverRepeatsNothingSettled(t *testing.T) {
	dir := t.TempDir()
	srv, err := natsembed.Start(natsembed.Config{Dir: dir, Listen: "127.0.0.1:0"})
	require.NoError(t, err)
	d := newDriver(t, dial(t, srv.URL()), natspubsub.Config{Prefix: "p"})
	for i := range 6 {
		publish(t, d, message(fmt.Sprint(i), "k"))
	}
	a := open(t, d, ordered)
	ds := receiveAll(t, a, 6)
	settle(t, a, pubsub.Ack, ds[0], ds[2], ds[3], ds[5])
	require.NoError(t, a.Close())

	b := open(t, d, ordered)
	ds = receiveAll(t, b, 2)
	require.Equal(t, []string{"1", "4"}, ids(ds))
	require.Equal(t, 2, ds[0].Attempt)
	settle(t, b, pubsub.Ack, ds[1])
	require.NoError(t, b.Close())
	require.NoError(t, d.Close())
	require.NoError(t, srv.Close())

	srv = embedded(t, natsembed.Config{Dir: dir, Listen: "127.0.0.1:0"})
	d = newDriver(t, dial(t, srv.URL()), natspubsub.Config{Prefix: "p"})
	publish(t, d, message("last", "k"))
	require.Equal(t, []string{"1", "last"}, ids(receiveAll(t, open(t, d, ordered), 2)))
}

// A member that is cut off past its lease has nothing to say of the lane any more: what it had comes again to another
// member, and its acknowledgements change nothing.
func TestGuaranteeMemberPastItsLeaseIsFenced(t *testing.T) {
	t.Parallel()
	srv := embedded(t, natsembed.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	steadily(t, func(t *testing.T, lease time.Duration, stood func(time.Duration)) string {
		p := newProxy(t, srv.URL()[len("nats://"):])
		prefix := fmt.Sprint("p", lease.Milliseconds())
		d := newDriver(t, dial(t, srv.URL()), natspubsub.Config{Prefix: prefix})
		short := func(s *pubsub.Subscription) { s.Ordered, s.Lease = true, lease }
		for i := range 5 {
			publish(t, d, message(fmt.Sprint(i), "k"))
		}
		a := open(t, newDriver(t, dial(t, p.url()), natspubsub.Config{Prefix: prefix}), short)
		ds := receiveAll(t, a, 5)
		p.stall()
		b := open(t, d, short)
		again := receiveAll(t, b, 1)
		require.Equal(t, "0", again[0].ID)
		require.GreaterOrEqual(t, again[0].Attempt, 2)
		p.resume()
		settle(t, a, pubsub.Ack, ds...)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { // a takes part again, and finds out
			_, _ = a.Receive(ctx, 1)
		}()
		require.Eventually(t, ds[0].Stale, patience, 10*time.Millisecond)
		cancel()
		var got []string
		for len(got) < 5 {
			got = append(got, ids(again)...)
			settle(t, b, pubsub.Ack, again...)
			if len(got) < 5 {
				again = receive(t, b, 5)
			}
		}
		if fmt.Sprint(got) != "[0 1 2 3 4]" {
			return fmt.Sprintf("the new owner got %s", got)
		}
		return ""
	})
}

// Members share the lanes, also when one joins or leaves, although the leases are long.
func TestLanesAreSharedFairly(t *testing.T) {
	onAll(t, func(t *testing.T, conn *nats.Conn) {
		d := newDriver(t, conn, natspubsub.Config{Lanes: 8})
		type arrived struct {
			member int
			pubsub.Delivery
		}
		got := make(chan arrived)
		join := func(member int) (leave func()) {
			r := open(t, d, ordered)
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				for {
					ds, err := r.Receive(ctx, 10)
					if err != nil {
						return
					}
					for _, x := range ds {
						select {
						case got <- arrived{member, x}:
							_ = r.Settle(ctx, []pubsub.Verdict{{Token: x.Token, Kind: pubsub.Ack}})
						case <-ctx.Done():
							return
						}
					}
				}
			}()
			leave = func() { cancel(); <-ended; _ = r.Close() }
			t.Cleanup(leave)
			return leave
		}
		rounds := 0
		await := func(shares ...int) { // how many lanes each member has
			begun := time.Now()
			for {
				rounds++
				require.Less(t, time.Since(begun), patience, "the lanes are not shared")
				const keys = 64
				for k := range keys {
					publish(t, d, message(fmt.Sprint(rounds, "/", k), fmt.Sprint("k", k)))
				}
				lanes := make([]map[int]bool, len(shares))
				for i := range lanes {
					lanes[i] = make(map[int]bool)
				}
				for seen := make(map[string]bool); len(seen) < keys; {
					x := <-got
					seen[x.ID] = true
					lanes[x.member][x.Lane] = true
				}
				right := true
				for i, n := range shares {
					right = right && len(lanes[i]) == n
				}
				if right {
					return
				}
			}
		}
		leaveA := join(0)
		await(8, 0, 0)
		join(1)
		await(4, 4, 0)
		leaveC := join(2)
		leaveA()
		await(0, 4, 4)
		leaveC()
		await(0, 8, 0)
	})
}

// A group that earlier versions kept in a consumer for each lane goes on where it was, and their members end.
func TestFormerGroupsGoOn(t *testing.T) {
	onAll(t, func(t *testing.T, conn *nats.Conn) {
		d := newDriver(t, conn, natspubsub.Config{Lanes: 1})
		for i := range 4 {
			publish(t, d, message(fmt.Sprint(i), "k"))
		}
		_, _, cfg := d.Describe()
		prefix := cfg.(natspubsub.Config).Prefix
		js, err := jetstream.New(conn)
		require.NoError(t, err)
		c, err := js.CreateConsumer(soon(t), prefix+"~t", jetstream.ConsumerConfig{
			Durable: "g+0", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 1, FilterSubject: prefix + ".t.0",
		})
		require.NoError(t, err)
		for range 2 {
			m, err := c.Next()
			require.NoError(t, err)
			require.NoError(t, m.DoubleAck(soon(t)))
		}
		_, err = d.Open(soon(t), pubsub.Subscription{Topic: "t", Group: "g", Lease: time.Minute})
		require.ErrorIs(t, err, natspubsub.ErrMismatch)
		r := open(t, d, ordered)
		require.Equal(t, []string{"2", "3"}, ids(receiveAll(t, r, 2)))
		_, err = js.Consumer(soon(t), prefix+"~t", "g+0")
		require.ErrorIs(t, err, jetstream.ErrConsumerNotFound)
	})
}

// A group is ordered or not, and temporary or not, for good.
func TestKindsOfGroupsDoNotMix(t *testing.T) {
	d := newDriver(t, inProcess(t).connect(t), natspubsub.Config{Lanes: 2})
	open(t, d, ordered)
	for _, change := range []func(*pubsub.Subscription){
		func(s *pubsub.Subscription) { s.Ordered = false },
		func(s *pubsub.Subscription) { s.Temporary = true },
	} {
		s := pubsub.Subscription{Topic: "t", Group: "g", Ordered: true, Lease: time.Minute}
		change(&s)
		_, err := d.Open(soon(t), s)
		require.ErrorIs(t, err, natspubsub.ErrMismatch)
	}
}

// Close writes the acknowledgements that are not yet written, or says that it could not.
func TestGuaranteeCloseConfirmsLanes(t *testing.T) {
	t.Parallel()
	srv := embedded(t, natsembed.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	p := newProxy(t, srv.URL()[len("nats://"):])
	direct := newDriver(t, dial(t, srv.URL()), natspubsub.Config{Prefix: "p"})
	d := newDriver(t, dial(t, p.url()), natspubsub.Config{Prefix: "p"})
	publish(t, direct, message("1", "k"))
	r, err := d.Open(soon(t), pubsub.Subscription{Topic: "t", Group: "g", Start: "start", Ordered: true, Lease: time.Minute, LaneDepth: 64})
	require.NoError(t, err)
	ds := receiveAll(t, r, 1)
	p.stall()
	settle(t, r, pubsub.Ack, ds...)
	require.ErrorIs(t, r.Close(), pubsub.ErrInDoubt)
	p.resume()
}
