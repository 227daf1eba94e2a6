package rabbitpubsub_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/rabbitmq/rabbitpubsub"
	"github.com/backstay-go/backstay/pubsub"
)

func TestConfigJSON(t *testing.T) {
	var c rabbitpubsub.Config
	require.NoError(t, json.Unmarshal([]byte(`{"prefix": "p", "lanes": 8, "publish_timeout": "2s"}`), &c))
	require.Equal(t, rabbitpubsub.Config{Prefix: "p", Lanes: 8, PublishTimeout: 2 * time.Second}, c)
	text, err := json.Marshal(c)
	require.NoError(t, err)
	require.JSONEq(t, `{"prefix": "p", "lanes": 8, "publish_timeout": "2s"}`, string(text))
	require.Error(t, json.Unmarshal([]byte(`{"lane": 8}`), &c))
}

func TestConfigFaultsAreReportedTogether(t *testing.T) {
	err := rabbitpubsub.Config{
		Prefix: "a.b", Lanes: 257, Topology: "make", Unroutable: "keep", Replicas: -1, MaxLength: -1, MaxPayload: -1,
		Window: -1, PublishTimeout: -1, Prefetch: 1 << 16, Heartbeat: 1500 * time.Millisecond,
	}.Validate()
	for _, field := range []string{
		"Prefix", "Lanes", "Topology", "Unroutable", "Replicas", "MaxLength", "MaxPayload", "Window", "PublishTimeout", "Prefetch", "Heartbeat",
	} {
		require.ErrorContains(t, err, field)
	}
	require.NoError(t, rabbitpubsub.Config{}.Validate())
}

func TestOpenFails(t *testing.T) {
	t.Parallel()
	for _, url := range []string{"", "http://x", "amqp://guest:secret@127.0.0.1:1/%zz", "amqp://guest:secret%zz@127.0.0.1:1", "amqp://guest:secret@127.0.0.1:port",
		"amqp://guest:secret#1@127.0.0.1:1"} {
		_, err := rabbitpubsub.Open(t.Context(), url, rabbitpubsub.Config{})
		require.Error(t, err)
		require.NotContains(t, err.Error(), "secret")
	}
	_, err := rabbitpubsub.Open(t.Context(), "amqp://guest:secret@127.0.0.1:1", rabbitpubsub.Config{})
	require.ErrorContains(t, err, "refused")
	require.NotContains(t, err.Error(), "secret")
	_, err = rabbitpubsub.Open(t.Context(), "amqp://127.0.0.1", rabbitpubsub.Config{Lanes: -1})
	require.ErrorContains(t, err, "Lanes")
}

func TestOpenTriesEveryServer(t *testing.T) {
	t.Parallel()
	url := shared(t)
	for range 4 {
		d, err := rabbitpubsub.Open(soon(t), "amqp://127.0.0.1:1, "+url, rabbitpubsub.Config{})
		require.NoError(t, err)
		require.NoError(t, d.Close())
	}
}

// A topic without a group: the broker would drop the message.
func TestGuaranteeUnroutableIsRefused(t *testing.T) {
	t.Parallel()
	d := newDriver(t, shared(t), rabbitpubsub.Config{})
	r := open(t, d)
	lonely := message("lonely", "")
	lonely.Topic = "nobody.reads.it"
	errs := d.Publish(t.Context(), []pubsub.Message{message("1", ""), lonely, message("2", ""), lonely})
	require.Len(t, errs, 4)
	require.NoError(t, errs[0])
	require.NoError(t, errs[2])
	for _, err := range []error{errs[1], errs[3]} {
		require.ErrorIs(t, err, rabbitpubsub.ErrUnroutable)
		require.NotErrorIs(t, err, pubsub.ErrInDoubt)
	}
	require.ElementsMatch(t, []string{"1", "2"}, ids(receive(t, r, 2)))
	require.Equal(t, uint64(2), d.Stats().Refused)
}

func TestGuaranteeFullQueueRefuses(t *testing.T) {
	t.Parallel()
	d := newDriver(t, shared(t), rabbitpubsub.Config{MaxLength: 10})
	r := open(t, d)
	var accepted []string
	var full error
	for i := 0; full == nil; i++ {
		require.Less(t, i, 10_000, "the queue takes everything")
		m := message(fmt.Sprint(i), "")
		if full = errors.Join(d.Publish(t.Context(), []pubsub.Message{m})...); full == nil {
			accepted = append(accepted, m.ID)
		}
	}
	require.ErrorIs(t, full, rabbitpubsub.ErrRejected)
	require.ErrorIs(t, full, pubsub.ErrInDoubt, "another group may have it")
	got := receive(t, r, len(accepted))
	require.Subset(t, ids(got), accepted)
	settle(t, r, pubsub.Ack, got...)
	require.Eventually(t, func() bool { return d.Publish(t.Context(), []pubsub.Message{message("again", "")}) == nil },
		patience, 10*time.Millisecond)
}

// The broker ends a channel with an error; the driver goes on with another.
func TestGuaranteeChannelErrorIsOvercome(t *testing.T) {
	t.Parallel()
	url := shared(t)
	d := newDriver(t, url, rabbitpubsub.Config{})
	first := open(t, d)
	publish(t, d, message("1", ""))
	require.Equal(t, "1", receive(t, first, 1)[0].ID)
	require.NoError(t, onChannel(url, func(ch *amqp.Channel) error { return ch.ExchangeDelete(d.cfg.Prefix+":t", false, false) }))
	errs := d.Publish(t.Context(), []pubsub.Message{message("2", "")})
	require.ErrorIs(t, errors.Join(errs...), pubsub.ErrInDoubt)
	require.ErrorContains(t, errs[0], "NOT_FOUND")
	errs = d.Publish(t.Context(), []pubsub.Message{message("3", "")}) // the exchange is there again, without bindings
	require.ErrorIs(t, errors.Join(errs...), rabbitpubsub.ErrUnroutable)
	second := open(t, d) // which binds
	publish(t, d, message("4", ""))
	require.Equal(t, "4", receive(t, second, 1)[0].ID)
}

func onChannel(url string, do func(*amqp.Channel) error) error {
	conn, err := amqp.Dial(url)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	return do(ch)
}

// A queue that is deleted takes its messages along: the consumer is told.
func TestGuaranteeDeletedQueueIsAnError(t *testing.T) {
	t.Parallel()
	url := shared(t)
	d := newDriver(t, url, rabbitpubsub.Config{})
	r := open(t, d)
	publish(t, d, message("1", ""))
	receive(t, r, 1)
	require.NoError(t, onChannel(url, func(ch *amqp.Channel) error {
		_, err := ch.QueueDelete(d.cfg.Prefix+":t:g", false, false, false)
		return err
	}))
	_, err := r.Receive(soon(t), 1)
	require.ErrorIs(t, err, rabbitpubsub.ErrMissing)
}

func TestGuaranteeMismatchIsRefused(t *testing.T) {
	t.Parallel()
	url := shared(t)
	d := newDriver(t, url, rabbitpubsub.Config{Lanes: 2})
	open(t, d)
	_, err := d.Driver.Open(soon(t), subscription(ordered))
	require.ErrorIs(t, err, rabbitpubsub.ErrMismatch, "the group is not ordered")

	other, err := rabbitpubsub.Open(soon(t), url, rabbitpubsub.Config{Prefix: d.cfg.Prefix, Lanes: 3})
	require.NoError(t, err)
	defer func() { require.NoError(t, other.Close()) }()
	require.ErrorIs(t, errors.Join(other.Publish(t.Context(), []pubsub.Message{message("1", "")})...), rabbitpubsub.ErrMismatch)
}

func TestTopologyCheckAndTrust(t *testing.T) {
	t.Parallel()
	url := shared(t)
	cfg := rabbitpubsub.Config{Prefix: freshPrefix(), Topology: "check"}
	checking := newDriver(t, url, cfg)
	_, err := checking.Driver.Open(soon(t), subscription(ordered))
	require.ErrorIs(t, err, rabbitpubsub.ErrMissing)
	require.ErrorIs(t, errors.Join(checking.Publish(t.Context(), []pubsub.Message{message("0", "")})...), rabbitpubsub.ErrMissing)

	cfg.Topology = "declare"
	open(t, newDriver(t, url, cfg), ordered)
	cfg.Topology = "trust"
	trusting := newDriver(t, url, cfg)
	for _, d := range []*driver{checking, trusting} {
		r, err := d.Driver.Open(soon(t), subscription(ordered))
		require.NoError(t, err)
		publish(t, d, message("1", "k"))
		settle(t, r, pubsub.Ack, receive(t, r, 1)...)
		require.NoError(t, r.Close())
	}
}

// Dead letters wait for their first reader, whether it wants order or not, and the next one gets none of them.
func TestGuaranteeDeadLettersAreKept(t *testing.T) {
	t.Parallel()
	for _, order := range []bool{false, true} {
		t.Run(fmt.Sprint("ordered=", order), func(t *testing.T) {
			d := newDriver(t, shared(t), rabbitpubsub.Config{})
			open(t, d)
			letter := message("dead", "k")
			letter.Topic, letter.Header = pubsub.DeadLetterTopic("t", "g"), pubsub.Header{"own": "kept"}
			publish(t, d, letter)
			reader := func(s *pubsub.Subscription) { s.Topic, s.Group, s.Ordered = letter.Topic, "first", order }
			r := open(t, d, reader)
			got := receive(t, r, 1)
			require.Equal(t, letter.ID, got[0].ID)
			require.Equal(t, letter.Header, got[0].Header)
			require.Equal(t, 1, got[0].Attempt)
			settle(t, r, pubsub.Ack, got...)
			second := open(t, d, reader, func(s *pubsub.Subscription) { s.Group = "second" })
			later := letter
			later.ID = "later"
			publish(t, d, later)
			require.Equal(t, "later", receive(t, second, 1)[0].ID)
			require.Equal(t, "later", receive(t, r, 1)[0].ID)
		})
	}
}

// Close cannot confirm what it has acknowledged when the connection does not answer.
func TestGuaranteeCloseSaysInDoubt(t *testing.T) {
	t.Parallel()
	p := newProxy(t, shared(t))
	d := newDriver(t, p.url(), rabbitpubsub.Config{Heartbeat: time.Second})
	r := open(t, d)
	publish(t, d, message("1", ""))
	got := receive(t, r, 1)
	p.stall()
	settle(t, r, pubsub.Ack, got...)
	err := r.Close()
	require.ErrorIs(t, err, pubsub.ErrInDoubt)
	require.Equal(t, err, r.Close())
	p.resume()
}

// Without a connection Publish says in time that nothing was sent.
func TestGuaranteeNotSentIsNotInDoubt(t *testing.T) {
	t.Parallel()
	p := newProxy(t, shared(t))
	d := newDriver(t, p.url(), rabbitpubsub.Config{PublishTimeout: time.Second})
	open(t, d)
	require.NoError(t, p.listener.Close())
	p.cut(true)
	require.Eventually(t, func() bool {
		errs := d.Publish(t.Context(), []pubsub.Message{message("1", "")})
		return errs != nil && !errors.Is(errs[0], pubsub.ErrInDoubt) && errors.Is(errs[0], context.DeadlineExceeded)
	}, patience, time.Millisecond)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	errs := d.Publish(ctx, []pubsub.Message{message("2", "")})
	require.ErrorIs(t, errs[0], context.Canceled)
	require.NotErrorIs(t, errs[0], pubsub.ErrInDoubt)
}

func TestPublishAfterClose(t *testing.T) {
	t.Parallel()
	d := newDriver(t, shared(t), rabbitpubsub.Config{})
	require.NoError(t, d.Close())
	require.ErrorIs(t, errors.Join(d.Publish(t.Context(), []pubsub.Message{message("1", "")})...), pubsub.ErrClosed)
	_, err := d.Driver.Open(t.Context(), subscription())
	require.ErrorIs(t, err, pubsub.ErrClosed)
}

// Names and values that the broker would obey, or cannot carry, arrive as they were sent.
func TestOddHeaders(t *testing.T) {
	t.Parallel()
	d := newDriver(t, shared(t), rabbitpubsub.Config{})
	r := open(t, d)
	m := message(strings.Repeat("long", 100), "")
	m.Header = pubsub.Header{
		"CC": "elsewhere", "bcc": "elsewhere", "x-delivery-count": "7", "X-Death": "text", "backstay-headers": "own",
		strings.Repeat("n", 300): "long name", "plain": strings.Repeat("v", 5000),
	}
	publish(t, d, m)
	got := receive(t, r, 1)[0]
	require.Equal(t, m.Header, got.Header)
	require.Equal(t, m.ID, got.ID)
	require.True(t, m.Time.Equal(got.Time))
	require.Equal(t, 1, got.Attempt)
}

func TestDescribeAndMetrics(t *testing.T) {
	t.Parallel()
	d := newDriver(t, shared(t), rabbitpubsub.Config{Name: "n"})
	kind, name, cfg := d.Describe()
	require.Equal(t, "rabbitpubsub", kind)
	require.Equal(t, "n", name)
	require.Equal(t, 4, cfg.(rabbitpubsub.Config).Lanes)
	metrics := maps.Collect(d.Metrics())
	require.Len(t, metrics, 7)
	require.Zero(t, metrics["published_total"])
}
