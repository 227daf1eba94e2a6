package pubsub

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSubscriptionDefaults(t *testing.T) {
	got := Subscription{Topic: "t", Group: "g"}.withDefaults()
	require.Equal(t, Subscription{
		Name: "t/g", Topic: "t", Group: "g", Start: "end", Concurrency: 8, MaxAttempts: 10,
		BackoffInitial: 100 * time.Millisecond, BackoffMax: 30 * time.Second, HandleTimeout: 30 * time.Second,
		Lease: 30 * time.Second, DrainTimeout: 30 * time.Second, LaneDepth: 64, BatchSize: 100, BatchWait: 50 * time.Millisecond,
	}, got)
	require.Equal(t, got, got.withDefaults())
	require.Equal(t, time.Hour, Subscription{BackoffInitial: time.Hour}.withDefaults().BackoffMax)
}

func TestSubscriptionValidateReportsEveryFault(t *testing.T) {
	err := Subscription{
		Topic: "a b", Group: "x.y", Start: "middle", Concurrency: -1, BackoffMax: -1, Lease: -1, LaneDepth: -1,
		HoldKey: true, BatchSize: -1,
	}.Validate()
	for _, field := range []string{"Topic", "Group", "Start", "HoldKey", "BatchSize", "Concurrency", "BackoffMax", "Lease", "LaneDepth"} {
		require.ErrorContains(t, err, "."+field+" ")
	}
	require.Error(t, Subscription{}.Validate())
	require.NoError(t, Subscription{Topic: "t", Group: "g", MaxAttempts: -1, HandleTimeout: -1, DrainTimeout: -1, BackoffInitial: -1}.Validate())
	require.ErrorContains(t, Subscription{Topic: "t", Group: "g", BackoffInitial: 2, BackoffMax: 1}.Validate(), "BackoffMax")
	require.ErrorContains(t, Subscription{Topic: strings.Repeat("t", 240), Group: "billing"}.Validate(), "dead-letter")
}

func TestATemporarySubscriptionNeedsNoGroupAndNoRoomForDeadLetters(t *testing.T) {
	long := strings.Repeat("t", 249)
	require.NoError(t, Subscription{Topic: long, Temporary: true}.Validate())
	require.NoError(t, Subscription{Topic: long, Group: "g", Temporary: true}.Validate())
	require.ErrorContains(t, Subscription{Topic: long, Group: "g"}.Validate(), "dead-letter")
	require.ErrorContains(t, Subscription{Topic: "t", Group: "x.y", Temporary: true}.Validate(), "Group")
}

func TestStartTime(t *testing.T) {
	for start, want := range map[string]time.Time{
		"2026-11-21T14:00:00Z":           time.Date(2026, 11, 21, 14, 0, 0, 0, time.UTC),
		"2026-11-21T14:00:00.5+02:00":    time.Date(2026, 11, 21, 12, 0, 0, 5e8, time.UTC),
		"2026-11-21T14:00:00.000000001Z": time.Date(2026, 11, 21, 14, 0, 0, 1, time.UTC),
	} {
		s := Subscription{Topic: "t", Group: "g", Start: start}
		require.NoError(t, s.Validate())
		got, ok := s.StartTime()
		require.True(t, ok)
		require.True(t, want.Equal(got), got)
	}
	for _, start := range []string{"", "start", "end"} {
		_, ok := Subscription{Start: start}.StartTime()
		require.False(t, ok)
	}
	for _, start := range []string{"2026-11-21", "14:00", "End", "2026-11-21 14:00:00Z", "2026-11-31T14:00:00Z"} {
		require.ErrorContains(t, Subscription{Topic: "t", Group: "g", Start: start}.Validate(), "Start", start)
	}
}

func TestSubscriptionJSON(t *testing.T) {
	s := Subscription{Topic: "t", Group: "g", Ordered: true, MaxAttempts: -1, Lease: time.Minute}
	b, err := json.Marshal(s)
	require.NoError(t, err)
	require.JSONEq(t, `{"topic":"t","group":"g","ordered":true,"max_attempts":"off","lease":"1m0s"}`, string(b))
	var back Subscription
	require.NoError(t, json.Unmarshal(b, &back))
	require.Equal(t, s, back)
	require.ErrorContains(t, json.Unmarshal([]byte(`{"topics":"t"}`), &back), "topics")
}

func FuzzSubscriptionJSON(f *testing.F) {
	f.Add([]byte(`{"topic":"t","group":"g","max_attempts":"off","lease":"1m0s"}`))
	f.Add([]byte(`{"topic":"t","temporary":true,"start":"2026-11-21T14:00:00Z","batch_size":5,"batch_wait":"off"}`))
	f.Add([]byte(`{"topic":"t","group":"g","ordered":true,"hold_key":true,"lane_depth":1}`))
	f.Add([]byte(`{"name":"\u0000","topic":"t.*","group":">","start":"-1","lease":"-1h","concurrency":9e9}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s Subscription
		if json.Unmarshal(b, &s) != nil {
			return
		}
		again, err := json.Marshal(s)
		require.NoError(t, err)
		var back Subscription
		require.NoError(t, json.Unmarshal(again, &back))
		require.Equal(t, s.withDefaults(), back.withDefaults())
		if s.Validate() != nil {
			return
		}
		full := s.withDefaults()
		require.NoError(t, full.Validate(), "the defaults are as good as what was written")
		require.True(t, isName(full.Group) || full.Temporary)
		require.Positive(t, min(full.Concurrency, full.LaneDepth, full.BatchSize, int(full.Lease), int(full.BackoffMax)))
		require.NotZero(t, full.MaxAttempts)
		for _, d := range []time.Duration{full.BackoffInitial, full.HandleTimeout, full.DrainTimeout, full.BatchWait} {
			require.NotZero(t, d)
		}
	})
}

func TestBackoffStaysWithinItsBounds(t *testing.T) {
	s := Subscription{BackoffInitial: time.Millisecond, BackoffMax: time.Second}
	for _, attempt := range []int{-5, 0, 1, 2, 10, 11, 31, 32, 63, 64, 1 << 40} {
		bound := time.Second
		if attempt <= 10 {
			bound = time.Millisecond << max(attempt-1, 0)
		}
		for range 100 {
			require.LessOrEqual(t, s.backoff(attempt), bound)
			require.GreaterOrEqual(t, s.backoff(attempt), time.Duration(0))
		}
	}
}

func TestHeaderText(t *testing.T) {
	require.Equal(t, "a b c", headerText(" a\r\nb\tc\xff"))
	long := headerText(strings.Repeat("é", 1000))
	require.Equal(t, strings.Repeat("é", 512), long)
	require.Len(t, headerText("x"+strings.Repeat("é", 1000)), 1023)
}

func TestFailuresAreBounded(t *testing.T) {
	var f failures
	for i := range 2 * maxFailures {
		id := string(rune('a'+i%26)) + strings.Repeat("x", i/26)
		f.note(id, failure{first: "first"})
		f.note(id, failure{first: "second", dead: &death{}})
		require.NotNil(t, f[id].dead)
	}
	require.Len(t, f, maxFailures)
	for _, seen := range f {
		require.Equal(t, "first", seen.first)
	}
}
