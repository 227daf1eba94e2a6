package mempubsub

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/pubsub"
)

// The IDs that are remembered are bounded, and none is forgotten early: the topic is full until the oldest is too old.
func TestRememberedIDsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, policy := range []string{waits, rejects} {
			d := New(Config{DedupWindow: time.Minute, WhenFull: policy})
			d.broker.topic("t").recent.limit = 2
			publish := func(ctx context.Context, id string) error {
				if errs := d.Publish(ctx, []pubsub.Message{{ID: id, Topic: "t"}}); errs != nil {
					return errs[0]
				}
				return nil
			}
			require.NoError(t, publish(t.Context(), "1"))
			<-time.After(time.Second)
			require.NoError(t, publish(t.Context(), "2"))
			require.NoError(t, publish(t.Context(), "1"), "a duplicate")
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			err := publish(ctx, "3")
			require.ErrorIs(t, err, ErrFull)
			require.ErrorContains(t, err, "2 IDs to remember (DedupWindow 1m0s)")
			begun := time.Now()
			if policy == waits {
				require.NoError(t, publish(t.Context(), "3"))
				require.Equal(t, 58*time.Second, time.Since(begun))
			}
			require.NoError(t, d.Close())
		}
	})
}

func TestARememberedIDCostsWhatIsDocumented(t *testing.T) {
	const n = 1 << 16
	r := recent{window: time.Hour, limit: maxRecent}
	before := heap()
	for i := range n {
		m := pubsub.Message{ID: fmt.Sprintf("%0100d", i)}
		r.add(hashID(&m), 0)
	}
	require.Less(t, (heap()-before)/n, uint64(90))
	for i := range n {
		m := pubsub.Message{ID: fmt.Sprintf("%0100d", i)}
		require.True(t, r.has(hashID(&m), 0))
	}
	require.False(t, r.has(dedupID{}, time.Hour))
	require.Less(t, heap(), before+100_000)
	runtime.KeepAlive(&r)
}

func heap() uint64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

// What a topic keeps to be used again is bounded too.
func TestMemoryAfterABurst(t *testing.T) {
	const n = 100_000
	d := New(Config{MaxPending: n})
	r, err := d.Open(t.Context(), pubsub.Subscription{Topic: "t", Group: "g", Lease: time.Minute})
	require.NoError(t, err)
	before := heap()
	for range n {
		require.Nil(t, d.Publish(t.Context(), []pubsub.Message{{Topic: "t", Payload: make([]byte, 100)}}))
	}
	for range n / 100 {
		got, err := r.Receive(t.Context(), 100)
		require.NoError(t, err)
		for _, g := range got {
			require.NoError(t, r.Settle(t.Context(), []pubsub.Verdict{{Token: g.Token, Kind: pubsub.Ack}}))
		}
	}
	require.Less(t, heap(), before+300_000)
	require.NoError(t, d.Close())
}

func TestATopicCostsWhatIsDocumented(t *testing.T) {
	const n = 10_000
	d := New(Config{})
	before := heap()
	for i := range n {
		require.Nil(t, d.Publish(t.Context(), []pubsub.Message{{Topic: fmt.Sprintf("topic-%05d", i)}}))
	}
	require.Less(t, (heap()-before)/n, uint64(750))
	require.Equal(t, n, d.Stats().Topics)
	require.NoError(t, d.Close())
}

func TestFIFO(t *testing.T) {
	var f fifo[int]
	in, out := 0, 0
	for round := range 2000 {
		for range round % 17 {
			f.push(in)
			in++
		}
		for range min(f.n, (round*7)%16) {
			require.Equal(t, out, f.at(0))
			require.Equal(t, out+f.n-1, f.at(f.n-1))
			require.Equal(t, out, f.pop())
			out++
		}
	}
	require.Equal(t, in-out, f.n)
	require.Positive(t, f.n)
}
