package kafkapubsub_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/backstay-go/backstay/backend/kafka/kafkapubsub"
	"github.com/backstay-go/backstay/pubsub"
)

func publish(t testing.TB, d *kafkapubsub.Driver, msgs ...pubsub.Message) {
	t.Helper()
	require.Nil(t, d.Publish(soon(t), msgs))
}

// numbers makes n messages without keys.
func numbers(n int) []pubsub.Message {
	msgs := make([]pubsub.Message, n)
	for i := range msgs {
		msgs[i] = message(fmt.Sprintf("m-%04d", i), "")
	}
	return msgs
}

// receive waits for n deliveries.
func receive(t testing.TB, r pubsub.Receiver, n int) []pubsub.Delivery {
	t.Helper()
	var all []pubsub.Delivery
	for len(all) < n {
		ds, err := r.Receive(soon(t), n-len(all))
		require.NoError(t, err)
		all = append(all, ds...)
	}
	return all
}

// receiveNone fails if something arrives within the time in which it would.
func receiveNone(t *testing.T, r pubsub.Receiver) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	ds, err := r.Receive(ctx, 10)
	require.Empty(t, ds)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func settle(t testing.TB, r pubsub.Receiver, kind pubsub.VerdictKind, ds ...pubsub.Delivery) {
	t.Helper()
	verdicts := make([]pubsub.Verdict, len(ds))
	for i, d := range ds {
		verdicts[i] = pubsub.Verdict{Token: d.Token, Kind: kind}
	}
	require.NoError(t, r.Settle(soon(t), verdicts))
}

// position is what the group has committed of partition 0.
func position(t testing.TB, c *kfake.Cluster, group, topic string) int64 {
	t.Helper()
	found, err := kadm.NewClient(client(t, c)).FetchOffsets(soon(t), group)
	require.NoError(t, err)
	at, ok := found.Lookup(topic, 0)
	require.True(t, ok)
	return at.At
}

// TestGuaranteeCommitStaysBehindUnsettled checks that a member which settles out of order commits nothing that is not
// settled, and that the next one gets just that.
func TestGuaranteeCommitStaysBehindUnsettled(t *testing.T) {
	t.Parallel()
	for _, ordered := range []bool{false, true} {
		t.Run(fmt.Sprintf("ordered %v", ordered), func(t *testing.T) {
			c := cluster(t)
			d := newDriver(t, c, kafkapubsub.Config{Prefix: "p.", Partitions: 1, CommitInterval: 10 * time.Millisecond})
			r := open(t, d, func(s *pubsub.Subscription) { s.Ordered = ordered })
			publish(t, d, numbers(40)...)
			ds := receive(t, r, 30)
			var settled []pubsub.Delivery
			for i, delivery := range ds {
				if i != 3 && i%7 != 0 {
					settled = append(settled, delivery)
				}
			}
			settle(t, r, pubsub.Ack, settled...)
			settle(t, r, pubsub.Ack, ds[0])
			require.Eventually(t, func() bool { return position(t, c, "p.g.t", "p.t") == 3 }, patience, 20*time.Millisecond)
			require.NoError(t, r.Close())
			require.EqualValues(t, 3, position(t, c, "p.g.t", "p.t"))

			r = open(t, d, func(s *pubsub.Subscription) { s.Ordered = ordered })
			var got []string
			for _, d := range receive(t, r, 15) {
				got = append(got, fmt.Sprintf("%s/%d", d.ID, d.Attempt))
			}
			want := []string{"m-0003/2", "m-0007/2", "m-0014/2", "m-0021/2", "m-0028/2"}
			for i := 30; i < 40; i++ {
				want = append(want, fmt.Sprintf("m-%04d/1", i))
			}
			require.Equal(t, want, got)
			receiveNone(t, r)
		})
	}
}

// TestGuaranteeCommitFailureLosesNothing has the broker refuse commits: Close says so, and what was not committed comes
// again.
func TestGuaranteeCommitFailureLosesNothing(t *testing.T) {
	t.Parallel()
	for name, refusal := range map[string]*kerr.Error{
		"coordinator moves": kerr.NotCoordinator, "rebalance": kerr.RebalanceInProgress, "unknown member": kerr.UnknownMemberID,
	} {
		t.Run(name, func(t *testing.T) {
			c := cluster(t)
			d := newDriver(t, c, kafkapubsub.Config{Prefix: "p.", Partitions: 1, CommitInterval: 10 * time.Millisecond})
			r := open(t, d, nil)
			publish(t, d, numbers(20)...)
			ds := receive(t, r, 10)
			var failing atomic.Bool
			var failed atomic.Int64
			failing.Store(true)
			c.ControlKey(int16(kmsg.OffsetCommit), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
				c.KeepControl()
				if !failing.Load() {
					return nil, nil, false
				}
				failed.Add(1)
				return refuseCommit(kreq.(*kmsg.OffsetCommitRequest), refusal), nil, true
			})
			settle(t, r, pubsub.Ack, ds...)
			require.Eventually(t, func() bool { return failed.Load() > 2 }, patience, 10*time.Millisecond)
			require.Zero(t, position(t, c, "p.g.t", "p.t"))
			require.ErrorIs(t, r.Close(), pubsub.ErrInDoubt)
			require.Positive(t, d.Stats().CommitsFailed)

			failing.Store(false)
			r = open(t, d, nil)
			again := receive(t, r, 20)
			require.Equal(t, "m-0000", again[0].ID)
			require.Equal(t, 2, again[0].Attempt)
			settle(t, r, pubsub.Ack, again...)
			require.NoError(t, r.Close())
			require.EqualValues(t, 20, position(t, c, "p.g.t", "p.t"))
		})
	}
}

func refuseCommit(req *kmsg.OffsetCommitRequest, refusal *kerr.Error) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.OffsetCommitResponse)
	for _, rt := range req.Topics {
		topic := kmsg.NewOffsetCommitResponseTopic()
		topic.Topic, topic.TopicID = rt.Topic, rt.TopicID
		for _, rp := range rt.Partitions {
			p := kmsg.NewOffsetCommitResponseTopicPartition()
			p.Partition, p.ErrorCode = rp.Partition, refusal.Code
			topic.Partitions = append(topic.Partitions, p)
		}
		resp.Topics = append(resp.Topics, topic)
	}
	return resp
}

// TestGuaranteeCloseReturns checks that a member whose brokers are gone leaves all the same, and says what it does not know.
func TestGuaranteeCloseReturns(t *testing.T) {
	t.Parallel()
	c, w := cluster(t), newWire()
	d := newDriver(t, c, kafkapubsub.Config{Partitions: 1, CommitInterval: time.Hour}, w.option())
	r := open(t, d, nil)
	publish(t, d, numbers(2)...)
	settle(t, r, pubsub.Ack, receive(t, r, 2)...)
	defer w.hang()()
	require.ErrorIs(t, r.Close(), pubsub.ErrInDoubt)
	require.ErrorIs(t, r.Close(), pubsub.ErrInDoubt, "again the same")
	_, err := r.Receive(soon(t), 1)
	require.ErrorIs(t, err, pubsub.ErrClosed)
}

// TestParkedRecordPausesItsPartition checks that a member which cannot settle a record holds no more than MaxAhead behind
// it, that other partitions go on, and that this one does when it is settled.
func TestParkedRecordPausesItsPartition(t *testing.T) {
	t.Parallel()
	c := cluster(t)
	d := newDriver(t, c, kafkapubsub.Config{Prefix: "p.", Partitions: 2, MaxAhead: 16}, kgo.FetchMaxPartitionBytes(2000))
	r := open(t, d, nil)
	const each = 300
	parked := receiveParked(t, d, r, each)
	got, others := 0, 0
	for others < each { // all of the partition that is not held up
		ds := receive(t, r, 1)
		settle(t, r, pubsub.Ack, ds...)
		if ds[0].Key == parked.Key {
			got++
		} else {
			others++
		}
	}
	require.Less(t, got, each/2, "the partition was not paused")
	settle(t, r, pubsub.Ack, parked)
	for ; got < each-1; got++ {
		settle(t, r, pubsub.Ack, receive(t, r, 1)...)
	}
}

// receiveParked fills two partitions, each with messages of one key, and returns the first delivery.
func receiveParked(t *testing.T, d *kafkapubsub.Driver, r pubsub.Receiver, each int) pubsub.Delivery {
	t.Helper()
	keys := []string{"a", "b"}
	for probe := 0; keyPartition(keys[0]) == keyPartition(keys[1]); probe++ {
		keys[1] = fmt.Sprint("b", probe)
	}
	var msgs []pubsub.Message
	for i := range each {
		for _, key := range keys {
			m := message(fmt.Sprint(key, "-", i), key)
			m.Payload = make([]byte, 100)
			msgs = append(msgs, m)
		}
	}
	for len(msgs) > 0 { // in batches smaller than MaxAhead: Kafka delivers whole ones
		publish(t, d, msgs[:10]...)
		msgs = msgs[10:]
	}
	return receive(t, r, 1)[0]
}

func keyPartition(key string) int {
	return kgo.StickyKeyPartitioner(nil).ForTopic("").Partition(&kgo.Record{Key: []byte(key)}, 2)
}

// TestRevokedRecordsAreStale checks that nothing begins of what was received before its partition went to another member,
// and that the rebalance waits for what has begun.
func TestRevokedRecordsAreStale(t *testing.T) {
	t.Parallel()
	c := cluster(t)
	d := newDriver(t, c, kafkapubsub.Config{Prefix: "p.", Partitions: 2})
	first := open(t, d, nil)
	publish(t, d, numbers(20)...)
	var ds []pubsub.Delivery
	var begun []pubsub.Delivery
	for _, d := range receive(t, first, 20) {
		if d.ID < "m-0002" { // messages without keys go to the partitions in turn
			require.False(t, d.Stale())
			begun = append(begun, d)
		} else {
			ds = append(ds, d)
		}
	}
	second := open(t, d, nil)
	got := make(chan pubsub.Delivery, 100)
	ctx, cancel := context.WithCancel(soon(t))
	defer cancel()
	go func() {
		for {
			more, err := second.Receive(ctx, 10)
			if err != nil {
				return
			}
			for _, d := range more {
				got <- d
			}
		}
	}()
	stale := make(map[string]bool)
	require.Eventually(t, func() bool {
		for _, d := range ds {
			if d.Stale() {
				stale[d.ID] = true
			}
		}
		return len(stale) > 0
	}, patience, 10*time.Millisecond, "no partition is about to go")
	for _, d := range ds {
		if d.Stale() {
			stale[d.ID] = true
		}
	}
	require.Len(t, stale, 9, "those of one partition, but for the one that has begun")
	select {
	case d := <-got:
		t.Fatalf("%s came to another while a handler of its partition ran", d.ID)
	case <-time.After(200 * time.Millisecond):
	}
	settle(t, first, pubsub.Ack, begun...)
	for len(stale) > 0 {
		select {
		case d := <-got:
			require.True(t, stale[d.ID], d.ID)
			delete(stale, d.ID)
		case <-time.After(patience):
			t.Fatalf("%d messages do not come to the other", len(stale))
		}
	}
}

// TestRevokeTimeoutBoundsARebalance checks that a handler which does not end holds up the others for so long only.
func TestRevokeTimeoutBoundsARebalance(t *testing.T) {
	t.Parallel()
	c := cluster(t)
	d := newDriver(t, c, kafkapubsub.Config{Prefix: "p.", Partitions: 2, RevokeTimeout: 300 * time.Millisecond})
	first := open(t, d, nil)
	publish(t, d, numbers(2)...)
	for _, d := range receive(t, first, 2) {
		require.False(t, d.Stale())
	}
	second := open(t, d, nil)
	again := receive(t, second, 1)
	require.Equal(t, 2, again[0].Attempt)
	require.Positive(t, d.Stats().Overrun)
}

func TestSettleRefusesForeignTokens(t *testing.T) {
	t.Parallel()
	d := newDriver(t, cluster(t), kafkapubsub.Config{Partitions: 1})
	r := open(t, d, nil)
	require.ErrorContains(t, r.Settle(soon(t), []pubsub.Verdict{{Token: 7, Kind: pubsub.Ack}}), "token 7")
}

func TestLanesBeginTogether(t *testing.T) {
	t.Parallel()
	const lanes = 8
	d := newDriver(t, cluster(t), kafkapubsub.Config{Partitions: lanes, CommitInterval: time.Hour})
	publish(t, d, numbers(800*lanes)...)
	r := open(t, d, func(s *pubsub.Subscription) { s.Ordered = true })
	begun := make(map[int]bool)
	for _, got := range receive(t, r, lanes) {
		begun[got.Lane] = true
	}
	require.Len(t, begun, lanes)
	require.EqualValues(t, 1, d.Stats().Commits, "one for each lane takes as many round trips")
}
