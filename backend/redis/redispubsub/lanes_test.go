package redispubsub_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/redis/internal/redistest"
	"github.com/backstay-go/backstay/backend/redis/redispubsub"
	"github.com/backstay-go/backstay/pubsub"
)

// ordered asks for order, with a lease that is longer than any test: what is handed over was not waited for.
func ordered(s *pubsub.Subscription) { s.Ordered, s.Lease = true, time.Hour }

// turnOver receives and acknowledges until ctx ends, and tells of every delivery.
func turnOver(ctx context.Context, t *testing.T, r pubsub.Receiver, got chan<- pubsub.Delivery) (ended chan struct{}) {
	t.Helper()
	ended = make(chan struct{})
	go func() {
		defer close(ended)
		for {
			ds, err := r.Receive(ctx, 10)
			if err != nil {
				return
			}
			for _, d := range ds {
				got <- d
				if err := r.Settle(ctx, []pubsub.Verdict{{Token: d.Token, Kind: pubsub.Ack}}); err != nil {
					t.Error(err)
				}
			}
		}
	}()
	return ended
}

// owners counts the lanes of group g of topic t by member.
func owners(t *testing.T, client rueidis.Client, prefix string) map[string]int {
	t.Helper()
	state, err := client.Do(soon(t), client.B().Hgetall().Key("{"+prefix+".t}:state:g").Build()).AsStrMap()
	require.NoError(t, err)
	lanes := make(map[string]int)
	for field, value := range state {
		if field[0] == 'o' {
			lanes[value]++
		}
	}
	return lanes
}

// Members share the lanes as evenly as they can be, and take over at once from one that leaves, long before its leases
// would run out.
func TestLanesAreSharedFairlyAndHandedOverAtOnce(t *testing.T) {
	t.Parallel()
	client := dial(t, redistest.SharedURL(t))
	prefix := freshPrefix(t, client)
	d := newDriver(t, client, redispubsub.Config{Prefix: prefix})
	ctx, cancel := context.WithCancel(soon(t))
	defer cancel()
	got := make(chan pubsub.Delivery, 1000)
	var members []pubsub.Receiver
	var ended []chan struct{}
	for n := 1; n <= 5; n++ {
		r := open(t, d, ordered)
		members = append(members, r)
		ended = append(ended, turnOver(ctx, t, r, got))
		redistest.Eventually(t, fmt.Sprintf("%d members share 16 lanes", n), func() bool {
			lanes := owners(t, client, prefix)
			total := 0
			for _, of := range lanes {
				if of != 16/n && of != (16+n-1)/n {
					return false
				}
				total += of
			}
			return len(lanes) == n && total == 16
		})
	}
	for n := 4; n >= 1; n-- {
		require.NoError(t, members[n].Close())
		<-ended[n]
		redistest.Eventually(t, fmt.Sprintf("%d members have taken over", n), func() bool {
			total := 0
			for _, of := range owners(t, client, prefix) {
				total += of
			}
			return len(owners(t, client, prefix)) == n && total == 16
		})
	}
	for i := range 100 {
		publish(t, d, message(fmt.Sprint(i), fmt.Sprint(i)))
	}
	for range 100 {
		<-got
	}
}

// What a member that leaves has not settled comes to another at once, as another attempt, ahead of what follows.
func TestLeavingGivesBackAtOnce(t *testing.T) {
	bothWays(t, func(t *testing.T, inOrder bool) {
		d := shared(t, redispubsub.Config{})
		change := func(s *pubsub.Subscription) { s.Ordered, s.Lease = inOrder, time.Hour }
		first, second := open(t, d, change), open(t, d, change)
		publish(t, d, message("1", "k"), message("2", "k"), message("3", "k"))
		ds := receive(t, first, 2)
		settle(t, first, pubsub.Ack, ds[0])
		require.NoError(t, first.Close())
		again := receive(t, second, 2)
		if inOrder {
			require.Equal(t, []string{"2", "3"}, ids(again))
			require.Equal(t, 1, again[1].Attempt)
		} else {
			require.ElementsMatch(t, []string{"2", "3"}, ids(again))
		}
		for _, a := range again {
			if a.ID == ds[1].ID {
				require.Equal(t, 2, a.Attempt)
			}
		}
		settle(t, second, pubsub.Ack, again...)
		require.NoError(t, second.Close())
	})
}

// A lane that has gone to another member is out of reach for the one that had it, whatever that believes.
func TestGuaranteeLostLaneCannotBeSettled(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	p := redistest.NewProxy(t, srv.Addr)
	client := dial(t, url(srv))
	d := newDriver(t, client, redispubsub.Config{Prefix: "p", Lanes: 1})
	cut := newDriver(t, hasty(t, p.Addr), redispubsub.Config{Prefix: "p", Lanes: 1})
	short := func(s *pubsub.Subscription) { s.Ordered, s.Lease = true, 2*time.Second }
	publish(t, d, message("1", "k"), message("2", "k"))
	ill := open(t, cut, short)
	ds := receive(t, ill, 2)
	require.False(t, ds[0].Stale())
	p.Cut() // it cannot renew
	well := open(t, d, short)
	again := receive(t, well, 2)
	require.Equal(t, []string{"1", "2"}, ids(again))
	require.Greater(t, again[0].Epoch, ds[0].Epoch)
	require.Equal(t, 2, again[0].Attempt)
	require.True(t, ds[0].Stale(), "the lease was over before the other could have it")
	settle(t, ill, pubsub.Ack, ds...)
	p.Mend()
	redistest.Eventually(t, "it learns of the loss", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		_, _ = ill.Receive(ctx, 1)
		n, err := client.Do(soon(t), client.B().Zcard().Key("{p.t}:members:g").Build()).AsInt64()
		return err == nil && n == 2
	})
	require.NoError(t, ill.Close())
	require.NoError(t, well.Close()) // nothing is settled
	last := receive(t, open(t, d, short), 2)
	require.Equal(t, []string{"1", "2"}, ids(last))
	require.Equal(t, 3, last[0].Attempt)
}

// A message that kills every process that handles it is known by its attempts, and what waits behind it is not blamed.
func TestAttemptsOutliveTheProcess(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	d := newDriver(t, dial(t, url(srv)), redispubsub.Config{Prefix: "p", Lanes: 1})
	var msgs []pubsub.Message
	for i := range 100 {
		msgs = append(msgs, message(fmt.Sprint(i), "k"))
	}
	publish(t, d, msgs...)
	const rounds = 3
	for round := 1; round <= rounds; round++ {
		p := redistest.NewProxy(t, srv.Addr)
		r := open(t, newDriver(t, hasty(t, p.Addr), redispubsub.Config{Prefix: "p", Lanes: 1}),
			func(s *pubsub.Subscription) { s.Ordered, s.Lease = true, 2*time.Second })
		ds := receive(t, r, 1)
		require.Equal(t, "0", ds[0].ID)
		require.Equal(t, round, ds[0].Attempt)
		p.Cut() // as if the process had ended
		t.Cleanup(p.Mend)
	}
	r := open(t, d, func(s *pubsub.Subscription) { s.Ordered, s.LaneDepth, s.Lease = true, 1000, 10*time.Second })
	for i, got := range receive(t, r, len(msgs)) {
		require.Equal(t, fmt.Sprint(i), got.ID)
		if i == 0 {
			require.Equal(t, rounds+1, got.Attempt)
		}
		if i > 20 {
			require.Equal(t, 1, got.Attempt, "message %s was never delivered", got.ID)
		}
	}
}

// A member without room for more does not keep others from their lanes, and a group can have more members than lanes.
func TestMoreMembersThanLanes(t *testing.T) {
	t.Parallel()
	d := shared(t, redispubsub.Config{Lanes: 2})
	ctx, cancel := context.WithCancel(soon(t))
	defer cancel()
	got := make(chan pubsub.Delivery, 1000)
	for range 4 {
		turnOver(ctx, t, open(t, d, ordered), got)
	}
	for i := range 50 {
		publish(t, d, message(fmt.Sprint(i), fmt.Sprint(i%7)))
	}
	for range 50 {
		<-got
	}
}

// The answer that gives a member its lanes may be lost: they are its own then, and it must find out.
func TestLanesWhoseGrantWasLostAreTakenAgain(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	p := redistest.NewProxy(t, srv.Addr)
	client := dial(t, url(srv))
	direct := newDriver(t, client, redispubsub.Config{Prefix: "p"})
	d := newDriver(t, hasty(t, p.Addr), redispubsub.Config{Prefix: "p"})
	publish(t, direct, message("warm", "k"))
	warm := open(t, d, func(s *pubsub.Subscription) { s.Group, s.Ordered = "warm", true })
	receive(t, warm, 1) // connections stand, and the server has the scripts
	require.NoError(t, warm.Close())
	r := open(t, d, func(s *pubsub.Subscription) { s.Ordered, s.Lease, s.Start = true, 10*time.Second, "end" })
	var msgs []pubsub.Message
	for i := range 50 {
		msgs = append(msgs, message(fmt.Sprint(i), fmt.Sprint(i)))
	}
	publish(t, direct, msgs...)
	p.CutReply()
	ds := receive(t, r, len(msgs))
	settle(t, r, pubsub.Ack, ds...)
	require.Positive(t, ds[0].Epoch)
	require.NoError(t, r.Close())
}

// What is settled under a token that is not the lane's any more changes nothing, also when nobody has told the member.
func TestGuaranteeSettlingIsFenced(t *testing.T) {
	t.Parallel()
	for name, theft := range map[string][]string{
		"another member":        {"o0", "thief"},
		"a later tenure of its": {"t0", "99"},
	} {
		t.Run(name, func(t *testing.T) {
			client := dial(t, redistest.SharedURL(t))
			prefix := freshPrefix(t, client)
			d := newDriver(t, client, redispubsub.Config{Prefix: prefix, Lanes: 1})
			publish(t, d, message("1", "k"))
			r := open(t, d, ordered)
			ds := receive(t, r, 1)
			state := "{" + prefix + ".t}:state:g"
			require.NoError(t, client.Do(soon(t), client.B().Hset().Key(state).FieldValue().FieldValue(theft[0], theft[1]).Build()).Error())
			settle(t, r, pubsub.Ack, ds...)
			redistest.Eventually(t, "it is told", ds[0].Stale)
			groups, err := client.Do(soon(t), client.B().XinfoGroups().Key("{"+prefix+".t}:0").Build()).ToArray()
			require.NoError(t, err)
			group, err := groups[0].AsStrMap()
			require.NoError(t, err)
			require.Equal(t, "0-0", group["last-delivered-id"])
		})
	}
}

// What is settled ahead of an earlier message is not delivered again to the member that gets the lane.
func TestSettledAheadIsHandedOver(t *testing.T) {
	t.Parallel()
	d := shared(t, redispubsub.Config{Lanes: 1})
	publish(t, d, message("1", "a"), message("2", "b"), message("3", "c"), message("4", "d"))
	first := open(t, d, ordered)
	ds := receive(t, first, 4)
	settle(t, first, pubsub.Ack, ds[1], ds[3])
	require.NoError(t, first.Close())
	second := open(t, d, ordered) // which has been told, and tells it
	require.Equal(t, []string{"1", "3"}, ids(receive(t, second, 2)))
	require.NoError(t, second.Close())
	r := open(t, d, ordered)
	require.Equal(t, []string{"1", "3"}, ids(receive(t, r, 2)))
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := r.Receive(ctx, 10)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

// Acknowledgements that could not be sent are sent again.
func TestAcksOutlastTheConnection(t *testing.T) {
	bothWays(t, func(t *testing.T, inOrder bool) {
		srv := redistest.Start(t)
		p := redistest.NewProxy(t, srv.Addr)
		d := newDriver(t, hasty(t, p.Addr), redispubsub.Config{Prefix: "p", Lanes: 1})
		client := dial(t, url(srv))
		direct := newDriver(t, client, redispubsub.Config{Prefix: "p", Lanes: 1})
		change := func(s *pubsub.Subscription) { s.Ordered, s.Lease = inOrder, time.Hour }
		publish(t, direct, message("1", "k"), message("2", "k"))
		r := open(t, d, change)
		ds := receive(t, r, 2)
		p.Cut()
		settle(t, r, pubsub.Ack, ds...)
		redistest.Eventually(t, "the client has noticed", func() bool {
			return d.Publish(soon(t), []pubsub.Message{message("lost", "k")}) != nil
		})
		p.Mend()
		require.NoError(t, r.Close())
		pending, err := client.Do(soon(t), client.B().Xpending().Key("{p.t}:0").Group("g").Build()).ToArray()
		require.NoError(t, err)
		n, err := pending[0].AsInt64()
		require.NoError(t, err)
		require.Zero(t, n)
		publish(t, direct, message("3", "k"))
		require.Equal(t, "3", receive(t, open(t, direct, change), 1)[0].ID)
	})
}
