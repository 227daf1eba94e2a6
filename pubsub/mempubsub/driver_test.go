package mempubsub_test

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/pubsub/mempubsub"
)

func sub(group string) pubsub.Subscription {
	return pubsub.Subscription{Topic: "t", Group: group, Lease: 10 * time.Second, LaneDepth: 64}
}

func ordered(group string) pubsub.Subscription {
	s := sub(group)
	s.Ordered = true
	return s
}

func open(t *testing.T, d *mempubsub.Driver, s pubsub.Subscription) pubsub.Receiver {
	t.Helper()
	r, err := d.Open(t.Context(), s)
	require.NoError(t, err)
	return r
}

func publish(t *testing.T, d *mempubsub.Driver, key string, ids ...string) {
	t.Helper()
	for _, id := range ids {
		require.Nil(t, d.Publish(t.Context(), []pubsub.Message{{ID: id, Topic: "t", Key: key}}))
	}
}

// receive takes what is there now.
func receive(t *testing.T, r pubsub.Receiver, limit int) []pubsub.Delivery {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	got, _ := r.Receive(ctx, limit)
	return got
}

func ids(got []pubsub.Delivery) (out []string) {
	for _, d := range got {
		out = append(out, d.ID)
	}
	return out
}

func settle(t *testing.T, r pubsub.Receiver, kind pubsub.VerdictKind, delay time.Duration, got ...pubsub.Delivery) {
	t.Helper()
	for _, d := range got {
		require.NoError(t, r.Settle(t.Context(), []pubsub.Verdict{{Token: d.Token, Kind: kind, Delay: delay}}))
	}
}

func TestFullGroupMakesPublishersWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := mempubsub.New(mempubsub.Config{MaxPending: 2})
		slow, quick := open(t, d, sub("slow")), open(t, d, sub("quick"))
		publish(t, d, "", "1", "2")
		settle(t, quick, pubsub.Ack, 0, receive(t, quick, 10)...)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		errs := d.Publish(ctx, []pubsub.Message{{ID: "3", Topic: "t"}, {ID: "4", Topic: "other"}})
		require.ErrorIs(t, errs[0], context.DeadlineExceeded)
		require.ErrorIs(t, errs[1], context.DeadlineExceeded, "later messages do not overtake")
		require.Empty(t, receive(t, quick, 10), "all groups or none")

		result := make(chan []error)
		go func() { result <- d.Publish(t.Context(), []pubsub.Message{{ID: "5", Topic: "t"}}) }()
		synctest.Wait()
		got := receive(t, slow, 1)
		settle(t, slow, pubsub.Ack, 0, got...)
		require.Nil(t, <-result)
		require.Equal(t, []string{"5"}, ids(receive(t, quick, 10)))

		other := d.Connect()
		go func() { result <- other.Publish(t.Context(), []pubsub.Message{{Topic: "t"}}) }()
		synctest.Wait()
		require.NoError(t, other.Close())
		require.ErrorIs(t, (<-result)[0], pubsub.ErrClosed)

		go func() { result <- d.Publish(t.Context(), []pubsub.Message{{Topic: "t"}}) }()
		synctest.Wait()
		require.NoError(t, slow.Close())
		require.NoError(t, d.RemoveGroup("t", "slow"))
		require.Nil(t, <-result)
		require.NoError(t, d.Close())
	})
}

func TestWithoutGroupsMessagesAreDroppedAndCounted(t *testing.T) {
	d := mempubsub.New(mempubsub.Config{})
	publish(t, d, "", "1", "2")
	require.EqualValues(t, 2, d.Stats().Dropped)
	s := sub("g")
	s.Start = "start"
	require.Empty(t, receive(t, open(t, d, s), 10))
	require.NoError(t, d.Close())
}

func TestRetainedMessagesAreTheLatest(t *testing.T) {
	d := mempubsub.New(mempubsub.Config{Retain: 3})
	for i := range 20 {
		publish(t, d, "", fmt.Sprint(i))
	}
	require.Zero(t, d.Stats().Dropped)
	s := sub("g")
	s.Start = "start"
	require.Equal(t, []string{"17", "18", "19"}, ids(receive(t, open(t, d, s), 10)))
	require.Empty(t, receive(t, open(t, d, sub("new")), 10))
	require.NoError(t, d.Close())
}

func TestUnreadDeadLettersAreKeptAndBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := mempubsub.New(mempubsub.Config{MaxPending: 2})
		open(t, d, sub("g"))
		dead := pubsub.Message{ID: "x", Topic: pubsub.DeadLetterTopic("t", "g")}
		require.Nil(t, d.Publish(t.Context(), []pubsub.Message{dead, dead}))
		require.Equal(t, 2, d.Stats().Unread)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, d.Publish(ctx, []pubsub.Message{dead})[0], context.DeadlineExceeded)
		s := sub("readers")
		s.Topic = dead.Topic
		require.Len(t, receive(t, open(t, d, s), 10), 2)
		require.Zero(t, d.Stats().Unread)
		require.NoError(t, d.Close())
	})
}

func TestNackedMessagesComeBeforeLaterOnes(t *testing.T) {
	d := mempubsub.New(mempubsub.Config{})
	for _, s := range []pubsub.Subscription{sub("unordered"), ordered("ordered")} {
		r := open(t, d, s)
		publish(t, d, "k", "1", "2", "3", "4", "5")
		got := receive(t, r, 4)
		settle(t, r, pubsub.Ack, 0, got[1])
		settle(t, r, pubsub.Nack, 0, got[2], got[0])
		again := receive(t, r, 10)
		require.Equal(t, []string{"1", "3", "5"}, ids(again))
		require.Equal(t, 2, again[0].Attempt)
		settle(t, r, pubsub.Ack, 0, again...)
		settle(t, r, pubsub.Ack, 0, got[3])
		require.NoError(t, r.Close())
		require.NoError(t, d.RemoveGroup("t", s.Group))
		require.Zero(t, d.Stats().Pending)
	}
}

func TestDelayedNackWaitsWithoutAGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := mempubsub.New(mempubsub.Config{})
		r := open(t, d, sub("g"))
		for i := range 500 {
			publish(t, d, "", fmt.Sprint(i))
		}
		before := runtime.NumGoroutine()
		settle(t, r, pubsub.Nack, time.Minute, receive(t, r, 500)...)
		require.LessOrEqual(t, runtime.NumGoroutine(), before)
		require.Empty(t, receive(t, r, 500))
		begun := time.Now()
		got, err := r.Receive(t.Context(), 500)
		require.NoError(t, err)
		require.NotEmpty(t, got)
		require.Equal(t, time.Minute, time.Since(begun))
		require.NoError(t, d.Close())
	})
}

func TestLeaseExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := mempubsub.New(mempubsub.Config{})
		dead, alive := open(t, d, sub("g")), open(t, d, sub("g"))
		publish(t, d, "", "1", "2")
		got := receive(t, dead, 2)
		<-time.After(6 * time.Second)
		settle(t, dead, pubsub.Extend, 0, got[0])
		begun := time.Now()
		next, err := alive.Receive(t.Context(), 10)
		require.NoError(t, err)
		require.Equal(t, []string{"2"}, ids(next))
		require.Equal(t, 4*time.Second, time.Since(begun))
		settle(t, dead, pubsub.Ack, 0, got[1]) // stale
		next, err = alive.Receive(t.Context(), 10)
		require.NoError(t, err)
		require.Equal(t, []string{"1"}, ids(next))
		require.Equal(t, 10*time.Second, time.Since(begun))
		require.EqualValues(t, 2, d.Stats().LeasesExpired)
		require.Equal(t, 2, d.Stats().Pending)
		require.NoError(t, d.Close())
	})
}

func TestLanesAreSharedAndHandedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := mempubsub.New(mempubsub.Config{Lanes: 8})
		a := open(t, d, ordered("g"))
		for i := range 200 {
			publish(t, d, fmt.Sprint("key", i), fmt.Sprint(i))
		}
		held := receive(t, a, 200)
		require.Len(t, held, 200)
		b := open(t, d, ordered("g"))
		require.Empty(t, receive(t, b, 200), "the first member has not settled")
		settle(t, a, pubsub.Ack, 0, held...)
		for i := range 200 {
			publish(t, d, fmt.Sprint("key", i), fmt.Sprint(i))
		}
		ofA, ofB := receive(t, a, 200), receive(t, b, 200)
		require.Len(t, append(ids(ofA), ids(ofB)...), 200)
		lanes := make(map[int]bool)
		for _, del := range ofA {
			lanes[del.Lane] = true
		}
		require.Len(t, lanes, 4)
		for _, del := range ofB {
			require.False(t, lanes[del.Lane], "lane %d has two members", del.Lane)
		}
		require.NoError(t, a.Close())
		require.Len(t, receive(t, b, 200), len(ofA))
		require.NoError(t, d.Close())
	})
}

func TestAbandonedLanesGoToLivingMembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := mempubsub.New(mempubsub.Config{})
		dead := open(t, d, ordered("g"))
		publish(t, d, "k", "1", "2", "3")
		first := receive(t, dead, 2)
		alive := open(t, d, ordered("g"))
		begun := time.Now()
		next, err := alive.Receive(t.Context(), 10)
		require.NoError(t, err)
		require.Equal(t, []string{"1", "2", "3"}, ids(next))
		require.Greater(t, next[0].Epoch, first[0].Epoch)
		require.Equal(t, 10*time.Second, time.Since(begun))
		require.Empty(t, receive(t, dead, 10), "back, but its lanes are in use")
		require.NoError(t, d.Close())
	})
}

func TestGroupIsOrderedForAllOrNone(t *testing.T) {
	d := mempubsub.New(mempubsub.Config{})
	r := open(t, d, ordered("g"))
	_, err := d.Open(t.Context(), sub("g"))
	require.ErrorContains(t, err, "Ordered true")
	require.ErrorContains(t, d.RemoveGroup("t", "g"), "1 open receivers")
	require.NoError(t, r.Close())
	require.NoError(t, d.RemoveGroup("t", "g"))
	require.NoError(t, d.RemoveGroup("t", "g"))
	open(t, d, sub("g"))
	require.NoError(t, d.Close())
	_, err = d.Open(t.Context(), sub("g"))
	require.ErrorIs(t, err, pubsub.ErrClosed)
	require.ErrorIs(t, d.Publish(t.Context(), []pubsub.Message{{Topic: "t"}})[0], pubsub.ErrClosed)
}

func TestConfig(t *testing.T) {
	require.Panics(t, func() { mempubsub.New(mempubsub.Config{Lanes: -1}) })
	err := mempubsub.Config{Lanes: -1, MaxPending: -1, Retain: -1}.Validate()
	for _, field := range []string{"Lanes", "MaxPending", "Retain"} {
		require.ErrorContains(t, err, field)
	}
	d := mempubsub.New(mempubsub.Config{})
	require.Equal(t, mempubsub.Config{Name: "mem", Lanes: 16, MaxPending: 10_000, WhenFull: "wait"}, d.Config())
	b, err := json.Marshal(d.Config())
	require.NoError(t, err)
	var back mempubsub.Config
	require.NoError(t, json.Unmarshal(b, &back))
	require.Equal(t, d.Config(), back)
	kind, name, config := d.Describe()
	require.Equal(t, []any{"pubsub.mem", "mem", d.Config()}, []any{kind, name, config})
	n := 0
	for range d.Metrics() {
		n++
	}
	require.Equal(t, 10, n)
}
