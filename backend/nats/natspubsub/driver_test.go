package natspubsub_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/nats/natsembed"
	"github.com/backstay-go/backstay/backend/nats/natspubsub"
	"github.com/backstay-go/backstay/pubsub"
)

func TestGuaranteeMismatchIsRefused(t *testing.T) {
	onAll(t, func(t *testing.T, conn *nats.Conn) {
		prefix := freshPrefix(t, conn)
		d := newDriver(t, conn, natspubsub.Config{Prefix: prefix, MaxAge: time.Hour})
		publish(t, d, message("1", ""))
		for _, tc := range []struct {
			cfg  natspubsub.Config
			text string
		}{
			{natspubsub.Config{Lanes: 8}, "Config.Lanes is 8, found 16"},
			{natspubsub.Config{Storage: "memory"}, "Config.Storage is Memory, found File"},
			{natspubsub.Config{Replicas: 3}, "Config.Replicas is 3, found 1"},
			{natspubsub.Config{MaxAge: time.Minute}, "Config.MaxAge is 1m0s, found 1h0m0s"},
			{natspubsub.Config{MaxBytes: 10}, "Config.MaxBytes is 10, found -1"},
		} {
			tc.cfg.Prefix = prefix
			other := newDriver(t, conn, tc.cfg)
			_, err := other.Open(soon(t), pubsub.Subscription{Topic: "t", Group: "g", Lease: time.Second})
			require.ErrorIs(t, err, natspubsub.ErrMismatch)
			require.ErrorContains(t, err, tc.text)
			require.ErrorContains(t, other.Publish(soon(t), []pubsub.Message{message("2", "")})[0], tc.text)
		}
		publish(t, newDriver(t, conn, natspubsub.Config{Prefix: prefix}), message("2", "")) // zero fields take what is there

		open(t, d, nil)
		_, err := d.Open(soon(t), pubsub.Subscription{Topic: "t", Group: "g", Ordered: true, Lease: time.Second})
		require.ErrorIs(t, err, natspubsub.ErrMismatch)
		require.ErrorContains(t, err, "Subscription.Ordered is true, found false")
	})
}

func TestForeignConsumerIsRefused(t *testing.T) {
	conn := inProcess(t).connect(t)
	d := newDriver(t, conn, natspubsub.Config{Prefix: "f"})
	publish(t, d, message("1", ""))
	js, err := jetstream.New(conn)
	require.NoError(t, err)
	for name, cfg := range map[string]jetstream.ConsumerConfig{
		"delivery limit": {Durable: "limited", AckPolicy: jetstream.AckExplicitPolicy, MaxDeliver: 3},
		"ack policy":     {Durable: "noack", AckPolicy: jetstream.AckNonePolicy},
		"filter":         {Durable: "part", AckPolicy: jetstream.AckExplicitPolicy, FilterSubject: "f.t.1"},
		"Temporary":      {Name: "passing", AckPolicy: jetstream.AckExplicitPolicy, InactiveThreshold: time.Minute},
	} {
		if cfg.FilterSubject == "" {
			cfg.FilterSubject = "f.t.*"
		}
		_, err := js.CreateConsumer(soon(t), "f~t", cfg)
		require.NoError(t, err)
		_, err = d.Open(soon(t), pubsub.Subscription{Topic: "t", Group: cfg.Durable + cfg.Name, Lease: time.Second})
		require.ErrorIs(t, err, natspubsub.ErrMismatch)
		require.ErrorContains(t, err, name)
	}
}

// The longest lease of a group holds for all its members.
func TestLeaseOnlyGrows(t *testing.T) {
	conn := inProcess(t).connect(t)
	d := newDriver(t, conn, natspubsub.Config{Prefix: "l"})
	js, err := jetstream.New(conn)
	require.NoError(t, err)
	for _, step := range [][2]time.Duration{{5 * time.Second, 5 * time.Second}, {9 * time.Second, 9 * time.Second}, {time.Second, 9 * time.Second}} {
		open(t, d, func(s *pubsub.Subscription) { s.Lease = step[0] })
		c, err := js.Consumer(soon(t), "l~t", "g")
		require.NoError(t, err)
		require.Equal(t, step[1], c.CachedInfo().Config.AckWait)
	}
}

func TestOpenTogether(t *testing.T) {
	onAll(t, func(t *testing.T, conn *nats.Conn) {
		prefix := freshPrefix(t, conn)
		var wg sync.WaitGroup
		for i := range 8 {
			d := newDriver(t, conn, natspubsub.Config{Prefix: prefix})
			wg.Go(func() {
				s := pubsub.Subscription{Topic: "t", Group: "g", Ordered: true, Lease: time.Second, Start: []string{"start", "end"}[i%2]}
				r, err := d.Open(soon(t), s)
				if err == nil {
					err = r.Close()
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	})
}

// Topics that could be mistaken for each other, in subjects or in names of streams, are apart.
func TestTopicsNeverMix(t *testing.T) {
	onAll(t, func(t *testing.T, conn *nats.Conn) {
		d := newDriver(t, conn, natspubsub.Config{})
		topics := []string{"a", "a.b", "a_b", "a-b", "a.0", "a.0.0", "A"}
		for _, topic := range topics {
			publish(t, d, pubsub.Message{ID: topic, Topic: topic, Time: time.Now()})
		}
		for _, topic := range topics {
			r := open(t, d, func(s *pubsub.Subscription) { s.Topic = topic })
			require.Equal(t, []string{topic}, ids(receive(t, r, 10)))
		}
	})
}

func TestBadNamesAreRefused(t *testing.T) {
	conn := inProcess(t).connect(t)
	d := newDriver(t, conn, natspubsub.Config{Prefix: "p"})
	for _, topic := range []string{"", ".", "a.", ".a", "a..b", "a b", "a*", "a.>", "a\n", "ü", strings.Repeat("x", 250)} {
		errs := d.Publish(soon(t), []pubsub.Message{{ID: "1", Topic: topic}})
		require.ErrorContains(t, errs[0], fmt.Sprintf("topic %q", topic))
	}
	long := newDriver(t, conn, natspubsub.Config{Prefix: strings.Repeat("p", 64)})
	for _, topic := range []string{strings.Repeat("x", 249), strings.Repeat("x", 248) + "y"} { // apart, although cut
		publish(t, long, pubsub.Message{ID: topic, Topic: topic})
		r := open(t, long, func(s *pubsub.Subscription) { s.Topic = topic })
		require.Equal(t, []string{topic}, ids(receive(t, r, 10)))
	}
	for _, group := range []string{"", "a.b", "a b", "*", "a+0", strings.Repeat("x", 252)} {
		_, err := d.Open(soon(t), pubsub.Subscription{Topic: "t", Group: group, Lease: time.Second})
		require.ErrorContains(t, err, fmt.Sprintf("group %q", group))
	}
	_, err := d.Open(soon(t), pubsub.Subscription{Topic: "t", Group: "g"})
	require.ErrorContains(t, err, "Lease")
}

func TestFullStreamRefuses(t *testing.T) {
	onAll(t, func(t *testing.T, conn *nats.Conn) {
		d := newDriver(t, conn, natspubsub.Config{MaxBytes: 4096})
		var errs []error
		for i := 0; errs == nil && i < 20; i++ {
			m := message(fmt.Sprint(i), "")
			m.Payload = make([]byte, 1000)
			errs = d.Publish(soon(t), []pubsub.Message{m})
		}
		require.Len(t, errs, 1)
		require.ErrorContains(t, errs[0], "maximum bytes exceeded")
		require.NotErrorIs(t, errs[0], pubsub.ErrInDoubt)
		require.Equal(t, []string{"0"}, ids(receive(t, open(t, d, nil), 1)), "the oldest is still there")
	})
}

func TestPublishOfDeletedStreamRecovers(t *testing.T) {
	conn := inProcess(t).connect(t)
	d := newDriver(t, conn, natspubsub.Config{Prefix: "p"})
	publish(t, d, message("1", ""))
	js, err := jetstream.New(conn)
	require.NoError(t, err)
	require.NoError(t, js.DeleteStream(soon(t), "p~t"))
	errs := d.Publish(soon(t), []pubsub.Message{message("2", "")})
	require.ErrorIs(t, errs[0], jetstream.ErrNoStreamResponse)
	require.NotErrorIs(t, errs[0], pubsub.ErrInDoubt)
	publish(t, d, message("2", ""))
}

func TestCloseRefusesFurtherUse(t *testing.T) {
	conn := inProcess(t).connect(t)
	d := newDriver(t, conn, natspubsub.Config{Prefix: "p"})
	require.NoError(t, d.Close())
	require.NoError(t, d.Close())
	require.ErrorIs(t, d.Publish(soon(t), []pubsub.Message{message("1", "")})[0], pubsub.ErrClosed)
	_, err := d.Open(soon(t), pubsub.Subscription{Topic: "t", Group: "g", Lease: time.Second})
	require.ErrorIs(t, err, pubsub.ErrClosed)
	require.False(t, conn.IsClosed(), "the connection is the caller's")
}

func TestOpenOwnsItsConnection(t *testing.T) {
	srv := embedded(t, natsembed.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	d, err := insist(func() (*natspubsub.Driver, error) { return natspubsub.Open(soon(t), srv.URL(), natspubsub.Config{}) })
	require.NoError(t, err)
	require.Eventually(t, func() bool { return srv.Stats().Connections == 1 }, patience, 10*time.Millisecond)
	require.NoError(t, d.Close())
	require.Eventually(t, func() bool { return srv.Stats().Connections == 0 }, patience, 10*time.Millisecond)
	_, err = natspubsub.Open(soon(t), "nats://127.0.0.1:1", natspubsub.Config{})
	require.ErrorIs(t, err, nats.ErrNoServers)
	_, err = natspubsub.New(t.Context(), nil, natspubsub.Config{})
	require.ErrorContains(t, err, "nil")
}

func TestConfig(t *testing.T) {
	err := natspubsub.Config{Prefix: strings.Repeat("p", 65), Lanes: 257, Storage: "tape", Replicas: -1, MaxAge: -1, MaxBytes: -1, MaxPending: -1, PublishTimeout: -1}.Validate()
	for _, field := range []string{"Prefix", "Lanes", "Storage", "Replicas", "MaxAge", "MaxBytes", "MaxPending", "PublishTimeout"} {
		require.ErrorContains(t, err, "Config."+field)
	}
	require.ErrorContains(t, natspubsub.Config{Storage: "memory", SyncAlways: true}.Validate(), "Config.SyncAlways")
	require.NoError(t, natspubsub.Config{}.Validate())
	_, err = natspubsub.New(t.Context(), nil, natspubsub.Config{Lanes: -1})
	require.ErrorContains(t, err, "Config.Lanes")

	cfg := natspubsub.Config{Prefix: "p", Lanes: 4, MaxAge: time.Hour, PublishTimeout: time.Second}
	b, err := json.Marshal(cfg)
	require.NoError(t, err)
	require.JSONEq(t, `{"prefix":"p","lanes":4,"max_age":"1h0m0s","publish_timeout":"1s"}`, string(b))
	var back natspubsub.Config
	require.NoError(t, json.Unmarshal(b, &back))
	require.Equal(t, cfg, back)
	require.Error(t, json.Unmarshal([]byte(`{"lane":4}`), &back))
	require.Error(t, json.Unmarshal([]byte(`{"max_age":5}`), &back))
}

// A delay that the stream cannot keep is refused, not cut short.
func TestDelaysThatCannotBeKeptAreRefused(t *testing.T) {
	conn := inProcess(t).connect(t)
	later := message("1", "")
	later.DeliverAt = time.Now().Add(time.Hour)
	bounded := newDriver(t, conn, natspubsub.Config{Prefix: "bounded", MaxBytes: 1 << 20})
	require.False(t, bounded.Capabilities().DeliverAt)
	require.ErrorIs(t, bounded.Publish(soon(t), []pubsub.Message{later})[0], pubsub.ErrUnsupported)
	publish(t, bounded, message("1", ""))

	joined := newDriver(t, conn, natspubsub.Config{Prefix: "bounded"}) // whose stream was made otherwise
	require.True(t, joined.Capabilities().DeliverAt)
	errs := joined.Publish(soon(t), []pubsub.Message{later, message("2", "")})
	require.ErrorIs(t, errs[0], natspubsub.ErrMismatch)
	require.ErrorContains(t, errs[0], "allow message schedules is false")
	require.NoError(t, errs[1])

	short := newDriver(t, conn, natspubsub.Config{Prefix: "short", MaxAge: time.Minute})
	require.Equal(t, time.Minute, short.Capabilities().Dedup)
	require.ErrorContains(t, short.Publish(soon(t), []pubsub.Message{later})[0], "keeps messages for 1m0s")
	require.ErrorContains(t, newDriver(t, conn, natspubsub.Config{Prefix: "short"}).Publish(soon(t), []pubsub.Message{later})[0], "keeps messages")

	old := message("old", "")
	old.DeliverAt = time.Now().Add(-time.Hour)
	publish(t, bounded, old)
}

// Somebody's stream that drops what nobody has handled is not a topic.
func TestStreamThatDropsIsRefused(t *testing.T) {
	conn := inProcess(t).connect(t)
	js, err := jetstream.New(conn)
	require.NoError(t, err)
	for name, change := range map[string]func(*jetstream.StreamConfig){
		"Config.MaxBytes": func(c *jetstream.StreamConfig) { c.MaxMsgs = 10 },
		"per subject":     func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 1 },
	} {
		cfg := jetstream.StreamConfig{Name: "drops~t", Subjects: []string{"drops.t.0"}}
		change(&cfg)
		_, err := js.CreateOrUpdateStream(soon(t), cfg)
		require.NoError(t, err)
		errs := newDriver(t, conn, natspubsub.Config{Prefix: "drops", Lanes: 1}).Publish(soon(t), []pubsub.Message{message("1", "")})
		require.ErrorIs(t, errs[0], natspubsub.ErrMismatch)
		require.ErrorContains(t, errs[0], name)
		require.NoError(t, js.DeleteStream(soon(t), "drops~t"))
	}
}

func TestCapabilitiesAndObservability(t *testing.T) {
	conn := inProcess(t).connect(t)
	file := newDriver(t, conn, natspubsub.Config{Prefix: "p", SyncAlways: true})
	require.Equal(t, pubsub.Capabilities{
		Driver: "nats", Ordered: true, DelayedNack: true, Durable: true, ReplayFromStart: true, ReplayFromTime: true,
		Temporary: true, DeliverAt: true, Dedup: 2 * time.Minute, PublishObeysContext: true, MaxPayload: 1<<20 - 16<<10,
		Durability: "fsynced by each acknowledging server, as declared by SyncAlways",
	}, file.Capabilities())
	memory := newDriver(t, conn, natspubsub.Config{Prefix: "m", Storage: "memory"})
	require.False(t, memory.Capabilities().Durable)
	publish(t, memory, message("1", ""))
	kind, name, cfg := file.Describe()
	require.Equal(t, "natspubsub p 16", fmt.Sprint(kind, " ", name, " ", cfg.(natspubsub.Config).Lanes))
	require.InDelta(t, 1, maps.Collect(memory.Metrics())["published_total"], 0)
}

// A URL that is none is quoted in no error: there is a password in it.
func TestErrorsOfOpenHaveNoPassword(t *testing.T) {
	for _, url := range []string{"nats://user:secret%zz@127.0.0.1:1", "nats://user:secret#1@127.0.0.1:1", "nats://user:secret@127.0.0.1:1"} {
		_, err := natspubsub.Open(t.Context(), url, natspubsub.Config{})
		require.Error(t, err)
		require.NotContains(t, err.Error(), "secret")
	}
}
