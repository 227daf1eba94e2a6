package outbox_test

import (
	"context"
	"encoding/json"
	"maps"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxtest"
	"github.com/backstay-go/backstay/pubsub"
)

func TestPublishRefusesWhatNoRelayCouldPublish(t *testing.T) {
	s := newMemStore()
	ob := outbox.New(s, outbox.Config{Name: "mine", MaxPayload: 3})
	good := pubsub.Message{Topic: "t", Payload: []byte("abc")}
	for want, m := range map[string]pubsub.Message{
		`topic "" has 0 bytes`:    {Payload: good.Payload},
		`topic "a b"`:             {Topic: "a b"},
		"4 bytes":                 {Topic: "t", Payload: []byte("abcd")},
		"ID or Key is not valid":  {Topic: "t", Key: "\xff"},
		`header name "\xff"`:      {Topic: "t", Header: pubsub.Header{"\xff": ""}},
		`header "h" is not valid`: {Topic: "t", Header: pubsub.Header{"h": "\xff"}},
	} {
		err := ob.InTx(t.Context(), func(ctx context.Context, tx *memTx) error { return ob.Publish(ctx, tx, good, m) })
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, `outbox "mine": message 1 of 2: `)
	}
	require.Empty(t, s.records)
	require.Zero(t, ob.Stats().Stored)
	unlimited := outbox.New(s, outbox.Config{MaxPayload: -1})
	m := pubsub.Message{Topic: "t", Payload: make([]byte, 2<<20)}
	require.NoError(t, unlimited.InTx(t.Context(), func(ctx context.Context, tx *memTx) error {
		return unlimited.Publish(ctx, tx, m)
	}))
	require.EqualValues(t, 1, unlimited.Stats().Stored)
	require.Empty(t, m.ID, "the arguments are not changed")
}

func TestHandlerDeadLettersAMessageWithoutID(t *testing.T) {
	in := outbox.NewInbox(newMemStore(), outbox.InboxConfig{})
	err := in.Handler("c", func(context.Context, *memTx, pubsub.Message) error { return nil })(t.Context(), pubsub.Message{})
	permanent, ok := err.(interface{ Permanent() bool })
	require.True(t, ok && permanent.Permanent(), "got %v", err)
}

func TestKeysSpreadOverTheBuckets(t *testing.T) {
	s := newMemStore()
	put(t, s, keys(6400)...)
	var count [outbox.Buckets]int
	for _, r := range s.records {
		count[r.Bucket()]++
	}
	for bucket, n := range count {
		require.InDelta(t, 100, n, 60, "bucket %d", bucket)
	}
}

func TestConfigs(t *testing.T) {
	t.Run("faults are reported at once", func(t *testing.T) {
		err := outbox.RelayConfig{
			Name: "r", Batch: -1, Lease: time.Millisecond, PublishTimeout: time.Second, PollMax: time.Millisecond, BackoffInitial: -1, BackoffMax: -1,
		}.Validate()
		for _, field := range []string{"Batch", "Lease", "PublishTimeout", "PollMax", "BackoffInitial", "BackoffMax"} {
			require.ErrorContains(t, err, `outbox "r": Config.`+field+" is ")
		}
		require.ErrorContains(t, outbox.InboxConfig{Retention: -1}.Validate(), "Config.Retention is")
		require.NoError(t, outbox.RelayConfig{}.Validate())
		require.NoError(t, outbox.InboxConfig{}.Validate())
		require.NoError(t, outbox.Config{}.Validate())
	})
	t.Run("JSON", func(t *testing.T) {
		c := outbox.RelayConfig{Name: "r", Lease: 3 * time.Second, MaxAttempts: -1}
		text, err := json.Marshal(c)
		require.NoError(t, err)
		require.JSONEq(t, `{"name":"r","lease":"3s","max_attempts":"off"}`, string(text))
		var back outbox.RelayConfig
		require.NoError(t, json.Unmarshal(text, &back))
		require.Equal(t, c, back)
		require.Error(t, json.Unmarshal([]byte(`{"leese":"1s"}`), &back))
		var in outbox.InboxConfig
		require.NoError(t, json.Unmarshal([]byte(`{"retention":"24h"}`), &in))
		require.Equal(t, 24*time.Hour, in.Retention)
		var ob outbox.Config
		require.NoError(t, json.Unmarshal([]byte(`{"max_payload":"off"}`), &ob))
		require.Equal(t, -1, ob.MaxPayload)
	})
	t.Run("Reconfigure", func(t *testing.T) {
		r := outbox.NewRelay(newMemStore(), &outboxtest.Publisher{}, outbox.RelayConfig{Lease: 4 * time.Second})
		before := r.Config()
		require.Equal(t, 2*time.Second, before.PublishTimeout)
		require.NoError(t, r.Reconfigure(before))
		require.Equal(t, before, r.Config())
		require.Error(t, r.Reconfigure(outbox.RelayConfig{Batch: -1}))
		require.Equal(t, before, r.Config())
	})
}

func TestNewRefusesNil(t *testing.T) {
	s, p := newMemStore(), &outboxtest.Publisher{}
	require.Panics(t, func() { outbox.New[*memTx](nil, outbox.Config{}) })
	require.Panics(t, func() { outbox.New(s, outbox.Config{}, outbox.WithRelay(nil)) })
	require.Panics(t, func() { outbox.NewInbox[*memTx](nil, outbox.InboxConfig{}) })
	require.Panics(t, func() { outbox.NewInbox(s, outbox.InboxConfig{Retention: -1}) })
	require.Panics(t, func() { outbox.NewRelay(nil, p, outbox.RelayConfig{}) })
	require.Panics(t, func() { outbox.NewRelay(s, nil, outbox.RelayConfig{}) })
	require.Panics(t, func() { outbox.NewRelay(s, p, outbox.RelayConfig{}, outbox.OnError(nil)) })
	require.Panics(t, func() { outbox.NewRelay(s, p, outbox.RelayConfig{}, outbox.OnFailure(nil)) })
	require.Panics(t, func() { outbox.NewRelay(s, p, outbox.RelayConfig{Batch: -1}) })
}

func TestDescribeAndMetrics(t *testing.T) {
	s := newMemStore()
	for kind, x := range map[string]interface {
		Describe() (kind, name string, config any)
	}{
		"outbox": outbox.New(s, outbox.Config{Name: "x"}),
		"inbox":  outbox.NewInbox(s, outbox.InboxConfig{Name: "x"}),
		"relay":  outbox.NewRelay(s, &outboxtest.Publisher{}, outbox.RelayConfig{Name: "x"}),
	} {
		gotKind, name, config := x.Describe()
		require.Equal(t, kind, gotKind)
		require.Equal(t, "x", name)
		require.NotNil(t, config)
	}
	require.Contains(t, maps.Collect(outbox.New(s, outbox.Config{}).Metrics()), "stored_total")
	require.Contains(t, maps.Collect(outbox.NewInbox(s, outbox.InboxConfig{}).Metrics()), "duplicates_total")
	metrics := maps.Collect(outbox.NewRelay(s, &outboxtest.Publisher{}, outbox.RelayConfig{}).Metrics())
	require.Contains(t, metrics, "oldest_age_seconds")
	for _, value := range metrics {
		require.False(t, math.IsNaN(value))
	}
}
