package mempubsub_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/pubsub/mempubsub"
)

func starting(group, start string) pubsub.Subscription {
	s := sub(group)
	s.Start = start
	return s
}

func TestStartTimeReplaysWhatIsRetainedFromThenOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := mempubsub.New(mempubsub.Config{Retain: 3})
		var times []string
		for i := range 5 {
			now := time.Now()
			times = append(times, now.Format(time.RFC3339Nano))
			require.Nil(t, d.Publish(t.Context(), []pubsub.Message{{ID: fmt.Sprint(i), Topic: "t", Time: now}}))
			<-time.After(time.Second)
		}
		require.Equal(t, []string{"3", "4"}, ids(receive(t, open(t, d, starting("from 3", times[3])), 10)))
		require.Equal(t, []string{"2", "3", "4"}, ids(receive(t, open(t, d, starting("from 0", times[0])), 10)))
		later := open(t, d, starting("from now", time.Now().Format(time.RFC3339Nano)))
		require.Empty(t, receive(t, later, 10))
		publish(t, d, "", "5")
		require.Equal(t, []string{"5"}, ids(receive(t, later, 10)))
		require.NoError(t, d.Close())
	})
}

// A first group gets the dead letters that nobody has read, whenever they died and wherever it begins, and each once.
func TestUnreadDeadLettersAreNotLeftOut(t *testing.T) {
	all, last := []string{"0", "1", "2", "3"}, []string{"2", "3"}
	now := time.Now().Format(time.RFC3339Nano)
	for _, retain := range []int{2, 10} {
		for _, start := range []string{"start", "end", now} {
			d := mempubsub.New(mempubsub.Config{Retain: retain})
			open(t, d, sub("g"))
			dead := pubsub.DeadLetterTopic("t", "g")
			for _, id := range all {
				m := pubsub.Message{ID: id, Topic: dead, Time: time.Now().Add(-time.Hour)}
				require.Nil(t, d.Publish(t.Context(), []pubsub.Message{m}))
			}
			for i, want := range [][]string{all, last} {
				s := starting(fmt.Sprint("reader", i), []string{start, "start"}[i])
				s.Topic = dead
				if i == 1 && retain == 10 {
					want = all
				}
				require.Equal(t, want, ids(receive(t, open(t, d, s), 10)))
			}
			require.NoError(t, d.Close())
		}
	}
}

func TestDeliverAtIsTheEarliestTimeAndHoldsNothingUp(t *testing.T) {
	for _, s := range []pubsub.Subscription{sub("unordered"), ordered("ordered")} {
		synctest.Test(t, func(t *testing.T) {
			d := mempubsub.New(mempubsub.Config{Retain: 10})
			r := open(t, d, s)
			begun := time.Now()
			at := func(seconds int) time.Time { return begun.Add(time.Duration(seconds) * time.Second) }
			require.Nil(t, d.Publish(t.Context(), []pubsub.Message{
				{ID: "in 3s", Topic: "t", Key: "k", DeliverAt: at(3)},
				{ID: "in 2s", Topic: "t", Key: "k", DeliverAt: at(2).UTC().Round(0)}, // as a decoder makes it
				{ID: "past", Topic: "t", Key: "k", DeliverAt: at(-1)},
				{ID: "in 2s too", Topic: "t", Key: "k", DeliverAt: at(2)},
			}))
			require.Equal(t, 4, d.Stats().Pending)
			require.Equal(t, []string{"past"}, ids(receive(t, r, 10)), "unsettled, it holds up nothing either")
			s.Group, s.Start = "late", "start"
			late := open(t, d, s)
			require.Equal(t, []string{"past"}, ids(receive(t, late, 10)))
			<-time.After(time.Second)
			publish(t, d, "k", "meanwhile")
			got, err := r.Receive(t.Context(), 10)
			require.NoError(t, err)
			require.Equal(t, []string{"meanwhile"}, ids(got))
			got, err = r.Receive(t.Context(), 10)
			require.NoError(t, err)
			require.Equal(t, []string{"in 2s", "in 2s too"}, ids(got))
			require.Equal(t, 2*time.Second, time.Since(begun))
			got, err = r.Receive(t.Context(), 10)
			require.NoError(t, err)
			require.Equal(t, []string{"in 3s"}, ids(got))
			require.Equal(t, 3*time.Second, time.Since(begun))
			require.Equal(t, 1, got[0].Attempt)
			synctest.Wait() // for the other group's timer
			require.Equal(t, []string{"meanwhile", "in 2s", "in 2s too", "in 3s"}, ids(receive(t, late, 10)))
			require.NoError(t, d.Close())
		})
	}
}

func TestScheduledMessagesTakeNoGoroutineAndAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := mempubsub.New(mempubsub.Config{MaxPending: 500, WhenFull: "reject"})
		r := open(t, d, sub("g"))
		begun, before := time.Now(), runtime.NumGoroutine()
		for i := range 500 { // the last is due first
			m := pubsub.Message{ID: fmt.Sprint(i), Topic: "t", DeliverAt: begun.Add(time.Duration(500-i) * time.Minute)}
			require.Nil(t, d.Publish(t.Context(), []pubsub.Message{m}))
		}
		require.LessOrEqual(t, runtime.NumGoroutine(), before)
		require.ErrorIs(t, d.Publish(t.Context(), []pubsub.Message{{Topic: "t"}})[0], mempubsub.ErrFull)
		for i := range 500 {
			got, err := r.Receive(t.Context(), 10)
			require.NoError(t, err)
			require.Equal(t, []string{fmt.Sprint(499 - i)}, ids(got))
			require.Equal(t, time.Duration(i+1)*time.Minute, time.Since(begun))
			settle(t, r, pubsub.Ack, 0, got...)
		}
		require.Zero(t, d.Stats().Pending)
		far := pubsub.Message{Topic: "t", DeliverAt: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)}
		require.Nil(t, d.Publish(t.Context(), []pubsub.Message{far}))
		require.Empty(t, receive(t, r, 1))
		require.NoError(t, d.Close())
		require.NoError(t, d.RemoveGroup("t", "g"))
	})
}

func TestTemporaryGroupEndsWithItsLastReceiver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := mempubsub.New(mempubsub.Config{MaxPending: 3, Retain: 1})
		s := sub("g")
		s.Temporary = true
		a, b := open(t, d, s), open(t, d, s)
		require.Equal(t, 1, d.Stats().Topics, "no dead-letter topic")
		_, err := d.Open(t.Context(), sub("g"))
		require.ErrorContains(t, err, "Temporary true")
		publish(t, d, "", "1", "2")
		require.Nil(t, d.Publish(t.Context(), []pubsub.Message{{ID: "3", Topic: "t", DeliverAt: time.Now().Add(time.Hour)}}))
		settle(t, a, pubsub.Nack, time.Minute, receive(t, a, 1)...)
		receive(t, b, 1)
		require.NoError(t, a.Close())
		require.Equal(t, 3, d.Stats().Pending, "the other has the group")

		result := make(chan []error)
		go func() { result <- d.Publish(t.Context(), []pubsub.Message{{ID: "4", Topic: "t"}}) }()
		synctest.Wait()
		require.NoError(t, b.Close())
		require.Nil(t, <-result, "the group kept it waiting")
		require.Zero(t, d.Stats().Pending)
		require.Zero(t, d.Stats().Groups)

		again := open(t, d, sub("g"))
		<-time.After(2 * time.Hour)
		require.Empty(t, receive(t, again, 10), "begins at the end")
		_, err = d.Open(t.Context(), s)
		require.ErrorContains(t, err, "Temporary false")
		require.NoError(t, d.Close())
	})
}

func TestDedupWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := mempubsub.New(mempubsub.Config{DedupWindow: time.Minute, MaxPending: 5, WhenFull: "reject"})
		require.Equal(t, time.Minute, d.Capabilities().Dedup)
		require.Zero(t, mempubsub.New(mempubsub.Config{}).Capabilities().Dedup)
		r := open(t, d, sub("g"))
		redriven := pubsub.Message{ID: "1", Topic: "t", Header: pubsub.Header{pubsub.HeaderRedrive: "g/x"}}
		require.Nil(t, d.Publish(t.Context(), []pubsub.Message{{ID: "1", Topic: "t"}, {ID: "2", Topic: "t"}, {ID: "1", Topic: "t"}, redriven}))
		require.Nil(t, d.Publish(t.Context(), []pubsub.Message{redriven, {ID: "2", Topic: "t"}, {ID: "1", Topic: "other"}}))
		got := receive(t, r, 10)
		require.Equal(t, []string{"1", "2", "1"}, ids(got))
		settle(t, r, pubsub.Ack, 0, got...)
		require.EqualValues(t, 3, d.Stats().Duplicates)
		require.EqualValues(t, 4, d.Stats().Published)

		<-time.After(time.Minute - 1)
		publish(t, d, "", "1", "3")
		require.Equal(t, []string{"3"}, ids(receive(t, r, 10)))
		<-time.After(1)
		publish(t, d, "", "1", "3")
		require.Equal(t, []string{"1"}, ids(receive(t, r, 10)))

		publish(t, d, "", "4", "5", "6")
		require.ErrorIs(t, d.Publish(t.Context(), []pubsub.Message{{ID: "7", Topic: "t"}})[0], mempubsub.ErrFull)
		publish(t, d, "", "6") // a duplicate needs no room
		settle(t, r, pubsub.Ack, 0, receive(t, r, 1)...)
		publish(t, d, "", "7") // was not remembered
		require.NoError(t, d.Close())
	})
}

// A message that was not accepted is not remembered, also if another publisher brought it meanwhile.
func TestDedupWhileWaitingForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := mempubsub.New(mempubsub.Config{DedupWindow: time.Hour, MaxPending: 1})
		r := open(t, d, sub("g"))
		publish(t, d, "", "1")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.NotNil(t, d.Publish(ctx, []pubsub.Message{{ID: "2", Topic: "t"}}))
		result := make(chan []error, 2)
		for range 2 {
			go func() { result <- d.Publish(t.Context(), []pubsub.Message{{ID: "2", Topic: "t"}}) }()
		}
		synctest.Wait()
		settle(t, r, pubsub.Ack, 0, receive(t, r, 10)...)
		require.Nil(t, <-result)
		require.Nil(t, <-result)
		require.Equal(t, []string{"2"}, ids(receive(t, r, 10)))
		require.EqualValues(t, 1, d.Stats().Duplicates)
		require.NoError(t, d.Close())
	})
}

func TestWhenFullReject(t *testing.T) {
	d := mempubsub.New(mempubsub.Config{MaxPending: 2, WhenFull: "reject"})
	slow, quick := open(t, d, sub("slow")), open(t, d, sub("quick"))
	errs := d.Publish(t.Context(), []pubsub.Message{{ID: "1", Topic: "t"}, {ID: "2", Topic: "t"}, {ID: "3", Topic: "t"}, {ID: "4", Topic: "other"}})
	require.NoError(t, errs[0])
	require.NoError(t, errs[1])
	for _, err := range errs[2:] {
		require.ErrorIs(t, err, mempubsub.ErrFull)
	}
	settle(t, quick, pubsub.Ack, 0, receive(t, quick, 10)...)

	errs = d.Publish(t.Context(), []pubsub.Message{{ID: "5", Topic: "t"}})
	var full *mempubsub.Error
	require.ErrorAs(t, errs[0], &full)
	require.Equal(t, "slow 2 t", fmt.Sprint(full.Group, " ", full.Limit, " ", full.Topic))
	require.EqualError(t, full, `mempubsub: group "slow" of topic "t" is full: it has 2 unsettled messages (MaxPending)`)
	require.True(t, full.Rejected())
	require.Empty(t, receive(t, quick, 10), "queued nowhere")
	require.EqualValues(t, 2, d.Stats().Published)
	settle(t, slow, pubsub.Ack, 0, receive(t, slow, 1)...)
	publish(t, d, "", "6")
	require.Equal(t, []string{"6"}, ids(receive(t, quick, 10)))

	dead := pubsub.DeadLetterTopic("t", "slow")
	errs = d.Publish(t.Context(), []pubsub.Message{{Topic: dead}, {Topic: dead}, {Topic: dead}})
	require.ErrorIs(t, errs[2], mempubsub.ErrFull)
	require.ErrorContains(t, errs[2], "2 dead letters")

	settle(t, slow, pubsub.Ack, 0, receive(t, slow, 1)...)
	bus := pubsub.New(d)
	require.NoError(t, bus.Publish(t.Context(), pubsub.Message{Topic: "t"}))
	require.ErrorIs(t, bus.Publish(t.Context(), pubsub.Message{Topic: "t"}), mempubsub.ErrFull)
	require.NoError(t, bus.Close())
}

func TestNewConfigFields(t *testing.T) {
	err := mempubsub.Config{WhenFull: "drop", DedupWindow: -1}.Validate()
	require.ErrorContains(t, err, "WhenFull")
	require.ErrorContains(t, err, "DedupWindow")
	var c mempubsub.Config
	require.NoError(t, json.NewDecoder(strings.NewReader(`{"when_full":"reject","dedup_window":"2m"}`)).Decode(&c))
	require.Equal(t, mempubsub.Config{WhenFull: "reject", DedupWindow: 2 * time.Minute}, c)
}

func TestEpochGrowsOnlyWhenALaneBeginsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := mempubsub.New(mempubsub.Config{Lanes: 2})
		r := open(t, d, ordered("g"))
		epochs := make(map[int]uint64)
		see := func(got ...pubsub.Delivery) (lanes []int) {
			for _, g := range got {
				if epochs[g.Lane] != g.Epoch {
					lanes = append(lanes, g.Lane)
				}
				epochs[g.Lane] = g.Epoch
			}
			return lanes
		}
		for i := range 20 {
			publish(t, d, fmt.Sprint("key", i), fmt.Sprint(i))
		}
		got := receive(t, r, 20)
		require.ElementsMatch(t, []int{0, 1}, see(got...))
		settle(t, r, pubsub.Nack, 0, got...)
		got = receive(t, r, 20)
		require.Empty(t, see(got...), "given back")
		for _, g := range got {
			if g.Lane == 1 {
				settle(t, r, pubsub.Ack, 0, g)
			}
		}
		<-time.After(10 * time.Second) // lane 0 is lost, and the only member is taken for dead
		synctest.Wait()
		for i := range 20 {
			publish(t, d, fmt.Sprint("key", i), fmt.Sprint(i))
		}
		require.Equal(t, []int{0}, see(receive(t, r, 40)...))
		require.NoError(t, d.Close())
	})
}

// A receiver that was woken and goes away leaves the message to another one.
func TestAWakeUpIsNotLost(t *testing.T) {
	for _, goAway := range []func(pubsub.Receiver, context.CancelFunc){
		func(r pubsub.Receiver, _ context.CancelFunc) { _ = r.Close() },
		func(_ pubsub.Receiver, cancel context.CancelFunc) { cancel() },
	} {
		for range 200 {
			synctest.Test(t, func(t *testing.T) {
				d := mempubsub.New(mempubsub.Config{})
				a, b := open(t, d, sub("g")), open(t, d, sub("g"))
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				got := make(chan []pubsub.Delivery, 2)
				go func() {
					first, _ := a.Receive(ctx, 1)
					got <- first
				}()
				synctest.Wait()
				go func() {
					second, _ := b.Receive(t.Context(), 1)
					got <- second
				}()
				synctest.Wait()
				publish(t, d, "", "1")
				goAway(a, cancel)
				synctest.Wait()
				if len(<-got) == 0 {
					require.Equal(t, []string{"1"}, ids(<-got))
				}
				require.NoError(t, d.Close())
			})
		}
	}
}

// A message that falls due in the moment in which a lease on its lane ends does not get before what was lost.
func TestWhatWasLostComesBeforeWhatFallsDue(t *testing.T) {
	for range 200 {
		synctest.Test(t, func(t *testing.T) {
			d := mempubsub.New(mempubsub.Config{})
			r := open(t, d, ordered("g"))
			publish(t, d, "k", "1")
			receive(t, r, 1)
			m := pubsub.Message{ID: "2", Topic: "t", Key: "k", DeliverAt: time.Now().Add(10 * time.Second)}
			require.Nil(t, d.Publish(t.Context(), []pubsub.Message{m}))
			got, err := r.Receive(t.Context(), 1)
			require.NoError(t, err)
			require.Equal(t, []string{"1"}, ids(got))
			require.NoError(t, d.Close())
		})
	}
}

func TestVerdictsOfOthersMeanNothing(t *testing.T) {
	d := mempubsub.New(mempubsub.Config{})
	a, b := open(t, d, sub("g")), open(t, d, sub("g"))
	publish(t, d, "", "1")
	got := receive(t, a, 1)
	settle(t, b, pubsub.Ack, 0, got...)
	require.NoError(t, b.Settle(t.Context(), []pubsub.Verdict{{Token: "no token of ours", Kind: pubsub.Ack}}))
	require.Equal(t, 1, d.Stats().Pending)
	settle(t, a, pubsub.Ack, 0, got...)
	require.Zero(t, d.Stats().Pending)
	require.NoError(t, d.Close())
}

func TestTimesWithoutEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := mempubsub.New(mempubsub.Config{})
		s := sub("g")
		s.Lease = math.MaxInt64
		a, b := open(t, d, s), open(t, d, s)
		<-time.After(time.Hour)
		publish(t, d, "", "1", "2")
		settle(t, a, pubsub.Nack, math.MaxInt64, receive(t, a, 1)...)
		receive(t, a, 1)
		<-time.After(1000 * time.Hour)
		synctest.Wait()
		require.Empty(t, receive(t, b, 2))
		require.Empty(t, receive(t, a, 2))
		require.NoError(t, d.Close())
	})
}

// The producer could publish a million messages in the time. The consumer takes one in 10 ms, and that is the pace.
func TestSlowConsumerSetsThePaceInBoundedMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 100
		driver := mempubsub.New(mempubsub.Config{MaxPending: limit})
		bus := pubsub.New(driver)
		c, err := bus.Open(t.Context(), pubsub.Subscription{Topic: "t", Group: "g", Concurrency: 1})
		require.NoError(t, err)
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		handled, done := 0, make(chan error)
		go func() {
			done <- c.Run(ctx, func(context.Context, pubsub.Message) error {
				<-time.After(10 * time.Millisecond)
				handled++
				return nil
			})
		}()
		published, atHalf := 0, uint64(0)
		for ctx.Err() == nil {
			if bus.Publish(ctx, pubsub.Message{Topic: "t", Payload: make([]byte, 10_000)}) == nil {
				published++
			}
			require.LessOrEqual(t, driver.Stats().Pending, limit)
			if published == 500 {
				atHalf = liveHeap()
			}
		}
		require.Less(t, liveHeap(), atHalf+limit*10_000)
		require.NoError(t, <-done)
		require.InDelta(t, 6000, handled, 2)
		require.InDelta(t, handled+limit, published, 2)
		require.NoError(t, bus.Close())
	})
}

func liveHeap() uint64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}
