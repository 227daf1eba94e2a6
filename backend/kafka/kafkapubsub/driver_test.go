package kafkapubsub_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/backstay-go/backstay/backend/kafka/kafkapubsub"
	"github.com/backstay-go/backstay/pubsub"
)

func TestConfig(t *testing.T) {
	t.Parallel()
	bad := kafkapubsub.Config{
		Prefix: "a/b", Topics: "make", Partitions: 1001, Replicas: -1, MaxAhead: 3, CommitInterval: -1, SessionTimeout: -1, PublishTimeout: -1,
	}
	err := bad.Validate()
	for _, field := range []string{
		"Prefix", "Topics", "Partitions", "Replicas", "MaxAhead", "CommitInterval", "SessionTimeout", "PublishTimeout",
	} {
		require.ErrorContains(t, err, field)
	}
	_, err = kafkapubsub.Open(soon(t), "127.0.0.1:1", bad)
	require.ErrorContains(t, err, "MaxAhead")

	var cfg kafkapubsub.Config
	require.NoError(t, json.Unmarshal([]byte(`{"prefix":"shop.","commit_interval":"250ms","revoke_timeout":"off"}`), &cfg))
	require.Equal(t, kafkapubsub.Config{Prefix: "shop.", CommitInterval: 250 * time.Millisecond, RevokeTimeout: -1}, cfg)
	text, err := json.Marshal(cfg)
	require.NoError(t, err)
	require.JSONEq(t, `{"prefix":"shop.","commit_interval":"250ms","revoke_timeout":"off"}`, string(text))
	require.Error(t, json.Unmarshal([]byte(`{"lanes":3}`), &cfg))
	require.NoError(t, kafkapubsub.Config{}.Validate())
}

func TestOptionsThatWeakenAreRefused(t *testing.T) {
	t.Parallel()
	c := cluster(t)
	for name, opts := range map[string][]kgo.Opt{
		"TransactionalID":                    {kgo.TransactionalID("tx")},
		"ConsumerGroup":                      {kgo.ConsumerGroup("g"), kgo.ConsumeTopics("t")},
		"ConsumeTopics":                      {kgo.ConsumeTopics("t")},
		"DisableIdempotentWrite":             {kgo.DisableIdempotentWrite()},
		"RequiredAcks":                       {kgo.DisableIdempotentWrite(), kgo.RequiredAcks(kgo.LeaderAck())},
		"AllowIdempotentProduceCancellation": {kgo.AllowIdempotentProduceCancellation()},
	} {
		_, err := kafkapubsub.New(soon(t), client(t, c, opts...), kafkapubsub.Config{})
		require.ErrorContains(t, err, "cannot be used", name)
	}
	_, err := kafkapubsub.New(soon(t), nil, kafkapubsub.Config{})
	require.Error(t, err)
	_, err = kafkapubsub.Open(soon(t), "kafka://", kafkapubsub.Config{})
	require.ErrorContains(t, err, "no broker")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = kafkapubsub.Open(ctx, "127.0.0.1:1", kafkapubsub.Config{})
	require.Error(t, err)
}

func TestTopicsAreCheckedOrMade(t *testing.T) {
	t.Parallel()
	c := cluster(t)
	check := newDriver(t, c, kafkapubsub.Config{Prefix: "p.", Topics: "check"})
	require.ErrorIs(t, check.Publish(soon(t), []pubsub.Message{message("m", "")})[0], kafkapubsub.ErrNoTopic)
	_, err := check.Open(soon(t), pubsub.Subscription{Topic: "t", Group: "g", Lease: time.Minute})
	require.ErrorIs(t, err, kafkapubsub.ErrNoTopic)

	d := newDriver(t, c, kafkapubsub.Config{Prefix: "p.", Partitions: 3})
	publish(t, d, message("m", ""))
	require.NoError(t, open(t, d, nil).Close())
	check = newDriver(t, c, kafkapubsub.Config{Prefix: "p.", Topics: "check"}) // the client of the other remembers for a while
	require.NoError(t, open(t, check, nil).Close())
	publish(t, check, message("m", ""))

	long := message("m", "")
	long.Topic = strings.Repeat("x", 248)
	require.ErrorContains(t, d.Publish(soon(t), []pubsub.Message{long})[0], "250 bytes")
}

// TestOddNames checks that topics and groups of similar names are things of their own, and that names which Kafka takes for
// the same are refused.
func TestOddNames(t *testing.T) {
	t.Parallel()
	d := newDriver(t, cluster(t), kafkapubsub.Config{Partitions: 1})
	names := []string{"a.b", "A.b", "a-b", "ab", "a", "a.b.c", "-", "--", "0", strings.Repeat("x", 200), strings.Repeat("x", 199) + "y"}
	for _, name := range names {
		m := message("to "+name, "")
		m.Topic = name
		publish(t, d, m)
	}
	for _, name := range names {
		r := open(t, d, func(s *pubsub.Subscription) { s.Topic = name })
		require.Equal(t, "to "+name, receive(t, r, 1)[0].ID)
		require.NoError(t, r.Close())
	}
	m := message("m", "")
	m.Topic = "a_b"
	errs := d.Publish(soon(t), []pubsub.Message{m})
	require.ErrorContains(t, errs[0], "collide")
	require.NotErrorIs(t, errs[0], pubsub.ErrInDoubt)
}

// TestGuaranteeInDoubt checks which failures of Publish say that the message may be stored.
func TestGuaranteeInDoubt(t *testing.T) {
	t.Parallel()
	c, w := cluster(t), newWire()
	d := newDriver(t, c, kafkapubsub.Config{Prefix: "p.", PublishTimeout: 500 * time.Millisecond}, w.option())
	publish(t, d, message("first", ""))

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	errs := d.Publish(ctx, []pubsub.Message{message("never", "")})
	require.ErrorIs(t, errs[0], context.Canceled)
	require.NotErrorIs(t, errs[0], pubsub.ErrInDoubt)

	huge := message("huge", "")
	huge.Payload = make([]byte, 2<<20)
	errs = d.Publish(soon(t), []pubsub.Message{message("small", ""), huge})
	require.NoError(t, errs[0])
	require.Error(t, errs[1])
	require.NotErrorIs(t, errs[1], pubsub.ErrInDoubt)

	resume := w.hang()
	errs = d.Publish(soon(t), []pubsub.Message{message("lost", ""), message("lost too", "")})
	for _, err := range errs {
		require.ErrorIs(t, err, pubsub.ErrInDoubt)
	}
	resume()
	st := d.Stats()
	require.Equal(t, []uint64{2, 2, 2}, []uint64{st.Published, st.Refused, st.InDoubt})

	require.NoError(t, d.Close())
	require.NoError(t, d.Close())
	errs = d.Publish(soon(t), []pubsub.Message{message("closed", "")})
	require.ErrorIs(t, errs[0], pubsub.ErrClosed)
	require.NotErrorIs(t, errs[0], pubsub.ErrInDoubt)
}

// TestSASL checks that options reach every client: the one that publishes and those of members.
func TestSASL(t *testing.T) {
	t.Parallel()
	c := cluster(t, kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-256", "shop", "secret"))
	auth := scram.Auth{User: "shop", Pass: "secret"}
	d, err := kafkapubsub.Open(soon(t), "kafka://"+strings.Join(c.ListenAddrs(), ","), kafkapubsub.Config{Partitions: 1},
		kgo.SASL(auth.AsSha256Mechanism()))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	r := open(t, d, nil)
	publish(t, d, message("m", ""))
	require.Equal(t, "m", receive(t, r, 1)[0].ID)

	auth.Pass = "wrong"
	_, err = kafkapubsub.Open(soon(t), strings.Join(c.ListenAddrs(), ","), kafkapubsub.Config{}, kgo.SASL(auth.AsSha256Mechanism()))
	require.Error(t, err)
}

func TestDescribesItself(t *testing.T) {
	t.Parallel()
	d := newDriver(t, cluster(t), kafkapubsub.Config{Name: "events", Partitions: 1})
	r := open(t, d, nil)
	publish(t, d, numbers(3)...)
	settle(t, r, pubsub.Nack, receive(t, r, 1)...)
	settle(t, r, pubsub.Ack, receive(t, r, 3)...)
	require.NoError(t, r.Close())
	kind, name, cfg := d.Describe()
	require.Equal(t, []any{"kafkapubsub", "events"}, []any{kind, name})
	require.Equal(t, 500*time.Millisecond, cfg.(kafkapubsub.Config).CommitInterval)
	got := maps.Collect(d.Metrics())
	require.Positive(t, got["commits_total"])
	delete(got, "commits_total")
	require.Equal(t, map[string]float64{
		"published_total": 3, "refused_total": 0, "in_doubt_total": 0, "received_total": 4, "redelivered_total": 1,
		"commits_failed_total": 0, "overrun_total": 0,
	}, got)
	for range d.Metrics() {
		break
	}
	require.Contains(t, fmt.Sprint(d.Capabilities().Durability), "in-sync")
}

// A URL that is none is quoted in no error: there is a password in it.
func TestErrorsOfOpenHaveNoPassword(t *testing.T) {
	for _, url := range []string{"kafka://user:secret@127.0.0.1:1", "127.0.0.1:1,user:secret@127.0.0.1:2"} {
		_, err := kafkapubsub.Open(t.Context(), url, kafkapubsub.Config{})
		require.Error(t, err)
		require.NotContains(t, err.Error(), "secret")
	}
}
