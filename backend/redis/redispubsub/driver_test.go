package redispubsub_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/redis/internal/redistest"
	"github.com/backstay-go/backstay/backend/redis/redispubsub"
	"github.com/backstay-go/backstay/pubsub"
)

func TestConfigValidateReportsEveryFault(t *testing.T) {
	err := redispubsub.Config{
		Prefix: "a b", Lanes: 257, MaxAge: -1, MaxLength: -1, TrimUnhandled: true, Replicas: -1, ReplicaTimeout: -1,
	}.Validate()
	for _, field := range []string{"Prefix", "Lanes", "MaxAge", "MaxLength", "TrimUnhandled", "Replicas", "ReplicaTimeout"} {
		require.ErrorContains(t, err, "Config."+field+" is")
	}
	require.NoError(t, redispubsub.Config{}.Validate())
	_, err = redispubsub.New(t.Context(), nil, redispubsub.Config{})
	require.ErrorContains(t, err, "client is nil")
	_, err = redispubsub.Open(t.Context(), "http://nowhere", redispubsub.Config{})
	require.ErrorContains(t, err, "ClientOption")
	_, err = redispubsub.Open(t.Context(), "redis://127.0.0.1:1", redispubsub.Config{})
	require.ErrorContains(t, err, "refused")
}

func TestConfigJSON(t *testing.T) {
	var cfg redispubsub.Config
	require.NoError(t, json.Unmarshal([]byte(`{"prefix": "p", "lanes": 4, "max_age": "24h"}`), &cfg))
	require.Equal(t, redispubsub.Config{Prefix: "p", Lanes: 4, MaxAge: 24 * time.Hour}, cfg)
	text, err := json.Marshal(cfg)
	require.NoError(t, err)
	require.JSONEq(t, `{"prefix": "p", "lanes": 4, "max_age": "24h0m0s"}`, string(text))
	require.Error(t, json.Unmarshal([]byte(`{"lane": 4}`), &cfg))
}

func TestMismatchIsRefused(t *testing.T) {
	t.Parallel()
	client := dial(t, redistest.SharedURL(t))
	prefix := freshPrefix(t, client)
	d := newDriver(t, client, redispubsub.Config{Prefix: prefix})
	open(t, d, nil)
	other := newDriver(t, client, redispubsub.Config{Prefix: prefix, Lanes: 4})
	errs := other.Publish(soon(t), []pubsub.Message{message("1", ""), {ID: "2", Topic: "else"}})
	require.ErrorIs(t, errs[0], redispubsub.ErrMismatch)
	require.ErrorContains(t, errs[0], "Config.Lanes is 4, found 16")
	require.NoError(t, errs[1])
	s := pubsub.Subscription{Topic: "t", Group: "g", Start: "start", Lease: time.Minute, Ordered: true}
	_, err := d.Open(soon(t), s)
	require.ErrorIs(t, err, redispubsub.ErrMismatch)
	require.ErrorContains(t, err, "it is to be ordered, found unordered")
	s.Ordered, s.Temporary = false, true
	_, err = d.Open(soon(t), s)
	require.ErrorIs(t, err, redispubsub.ErrMismatch)
	s.Temporary, s.Lease = false, 0
	_, err = d.Open(soon(t), s)
	require.ErrorContains(t, err, "Lease")
	s.Lease, s.Group = time.Minute, "a:b"
	_, err = d.Open(soon(t), s)
	require.ErrorContains(t, err, "group")
}

func TestStatsAndMetrics(t *testing.T) {
	t.Parallel()
	d := shared(t, redispubsub.Config{})
	r := open(t, d, nil)
	publish(t, d, message("1", ""), message("2", ""))
	settle(t, r, pubsub.Nack, receive(t, r, 2)...)
	settle(t, r, pubsub.Ack, receive(t, r, 2)...)
	require.Equal(t, redispubsub.Stats{Published: 2, Received: 4, Redelivered: 2}, d.Stats())
	metrics := maps.Collect(d.Metrics())
	require.Equal(t, map[string]float64{"published_total": 2, "refused_total": 0, "in_doubt_total": 0, "received_total": 4,
		"redelivered_total": 2, "trimmed_total": 0}, metrics)
	kind, _, _ := d.Describe()
	require.Equal(t, "redispubsub", kind)
	require.NoError(t, d.Close())
	require.ErrorIs(t, d.Publish(soon(t), []pubsub.Message{message("3", "")})[0], pubsub.ErrClosed)
	_, err := d.Open(soon(t), pubsub.Subscription{})
	require.ErrorIs(t, err, pubsub.ErrClosed)
}

// length is the number of messages of topic t.
func length(t *testing.T, client rueidis.Client, prefix string, lanes int) (n int64) {
	t.Helper()
	for lane := range lanes {
		of, err := client.Do(soon(t), client.B().Xlen().Key(fmt.Sprintf("{%s.t}:%d", prefix, lane)).Build()).AsInt64()
		require.NoError(t, err)
		n += of
	}
	return n
}

// Trimming keeps what the slowest group has not handled, whether it is pending or was never read, unless told.
func TestGuaranteeTrimmingKeepsWhatIsNotHandled(t *testing.T) {
	bothWays(t, func(t *testing.T, inOrder bool) {
		client := dial(t, redistest.SharedURL(t))
		prefix := freshPrefix(t, client)
		cfg := redispubsub.Config{Prefix: prefix, Lanes: 2, MaxLength: 20}
		d := newDriver(t, client, cfg)
		var msgs []pubsub.Message
		for i := range 100 {
			msgs = append(msgs, message(fmt.Sprint(i), fmt.Sprint(i%2)))
		}
		publish(t, d, msgs...)
		trim := func(d *redispubsub.Driver) int {
			n, err := d.Trim(soon(t), "t")
			require.NoError(t, err)
			return n
		}
		require.Zero(t, trim(d), "nobody has read it yet")
		quick := open(t, d, func(s *pubsub.Subscription) { s.Group, s.Ordered = "quick", inOrder })
		slow := open(t, d, func(s *pubsub.Subscription) { s.Ordered, s.LaneDepth = inOrder, 100 })
		settle(t, quick, pubsub.Ack, receive(t, quick, 100)...)
		require.NoError(t, quick.Close())
		require.Zero(t, trim(d), "a group that is stopped has read nothing")
		ds := receive(t, slow, 100)
		require.Zero(t, trim(d), "a group has handled nothing")
		settle(t, slow, pubsub.Ack, ds[60:]...)
		require.NoError(t, slow.Close())
		require.Zero(t, trim(d), "the first ones are still to be handled")

		slow = open(t, d, func(s *pubsub.Subscription) { s.Ordered, s.LaneDepth = inOrder, 100 })
		ds = receive(t, slow, 60)
		settle(t, slow, pubsub.Ack, ds...)
		require.NoError(t, slow.Close())
		require.Equal(t, 80, trim(d))
		require.EqualValues(t, 20, length(t, client, prefix, 2))
		require.EqualValues(t, 80, d.Stats().Trimmed)
		require.Zero(t, trim(d))

		publish(t, d, msgs...)
		require.Equal(t, 20, trim(d), "two groups have not handled the others")
		require.EqualValues(t, 100, length(t, client, prefix, 2))
		cfg.TrimUnhandled = true
		require.Equal(t, 80, trim(newDriver(t, client, cfg)))
		rest := receive(t, open(t, d, func(s *pubsub.Subscription) { s.Ordered, s.LaneDepth = inOrder, 100 }), 20)
		require.Equal(t, 1, rest[0].Attempt)
	})
}

func TestTrimmingByAge(t *testing.T) {
	t.Parallel()
	client := dial(t, redistest.SharedURL(t))
	prefix := freshPrefix(t, client)
	young := newDriver(t, client, redispubsub.Config{Prefix: prefix, Lanes: 2, MaxAge: time.Hour})
	old := newDriver(t, client, redispubsub.Config{Prefix: prefix, Lanes: 2, MaxAge: time.Millisecond})
	r := open(t, old, nil)
	publish(t, old, message("1", ""), message("2", ""))
	settle(t, r, pubsub.Ack, receive(t, r, 2)...)
	require.NoError(t, r.Close())
	n, err := young.Trim(soon(t), "t")
	require.NoError(t, err)
	require.Zero(t, n)
	redistest.Eventually(t, "they are old", func() bool {
		_, err := old.Trim(soon(t), "t")
		require.NoError(t, err)
		return length(t, client, prefix, 2) == 0
	})
}

// The server's list of consumers is cleared when members leave, and none is deleted that has something pending.
func TestGuaranteeNoConsumerIsDeletedWithEntriesPending(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	client := dial(t, url(srv))
	d := newDriver(t, client, redispubsub.Config{Prefix: "p", Lanes: 1})
	publish(t, d, message("1", ""), message("2", ""), message("3", ""))
	leaving := open(t, d, nil)
	ds := receive(t, leaving, 3)
	settle(t, leaving, pubsub.Ack, ds[0])
	pending := func() int64 {
		all, err := client.Do(soon(t), client.B().Xpending().Key("{p.t}:0").Group("g").Build()).ToArray()
		require.NoError(t, err)
		n, err := all[0].AsInt64()
		require.NoError(t, err)
		return n
	}
	require.NoError(t, leaving.Close())
	require.EqualValues(t, 2, pending(), "they are in the server's hands")
	consumers, err := client.Do(soon(t), client.B().XinfoConsumers().Key("{p.t}:0").Group("g").Build()).ToArray()
	require.NoError(t, err)
	require.Len(t, consumers, 1, "the one to which they were given back")
	next := open(t, d, nil)
	settle(t, next, pubsub.Ack, receive(t, next, 2)...)
	require.NoError(t, next.Close())
	require.Zero(t, pending())
}

// A slow member takes no more than it has room for, though there are many lanes.
func TestSlowMemberLeavesTheRest(t *testing.T) {
	t.Parallel()
	d := shared(t, redispubsub.Config{})
	slow, quick := open(t, d, nil), open(t, d, nil)
	var msgs []pubsub.Message
	for i := range 100 {
		msgs = append(msgs, message(fmt.Sprint(i), ""))
	}
	publish(t, d, msgs...)
	require.Len(t, receive(t, slow, 3), 3)
	require.Len(t, receive(t, quick, 97), 97)
}

// On a cluster all keys of a topic are on one node, and topics are on several.
func TestCluster(t *testing.T) {
	t.Parallel()
	nodes := redistest.StartCluster(t)
	opt, err := redispubsub.ClientOption(url(nodes[0]))
	require.NoError(t, err)
	client, err := rueidis.NewClient(opt)
	require.NoError(t, err)
	t.Cleanup(client.Close)
	d := newDriver(t, client, redispubsub.Config{Prefix: "p", Replicas: 0})
	atOnceHere := []bool{false, true}
	for _, inOrder := range atOnceHere {
		var msgs []pubsub.Message
		for i := range 200 {
			msgs = append(msgs, pubsub.Message{ID: fmt.Sprint(i), Topic: fmt.Sprint("t", i%10), Key: "k", Time: time.Now()})
		}
		publish(t, d, msgs...)
		for topic := range 10 {
			r := open(t, d, func(s *pubsub.Subscription) {
				s.Topic, s.Ordered, s.Group = fmt.Sprint("t", topic), inOrder, fmt.Sprint("g", inOrder)
				s.LaneDepth = 100
			})
			ds := receive(t, r, 20)
			settle(t, r, pubsub.Ack, ds...)
			require.NoError(t, r.Close())
			_, err := d.Trim(soon(t), fmt.Sprint("t", topic))
			require.NoError(t, err)
		}
	}
	used := 0
	for _, n := range client.Nodes() {
		size, err := n.Do(context.Background(), n.B().Dbsize().Build()).AsInt64()
		require.NoError(t, err)
		if size > 0 {
			used++
		}
	}
	require.Greater(t, used, 1)
}

// A URL that is none is quoted in no error: there is a password in it.
func TestErrorsOfOpenHaveNoPassword(t *testing.T) {
	for _, url := range []string{"redis://user:secret%zz@127.0.0.1:1", "redis://user:secret#1@127.0.0.1:1"} {
		_, err := redispubsub.Open(t.Context(), url, redispubsub.Config{})
		require.Error(t, err)
		require.NotContains(t, err.Error(), "secret")
	}
}
