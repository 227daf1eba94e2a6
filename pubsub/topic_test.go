package pubsub_test

import (
	"bytes"
	"context"
	"encoding/gob"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/pubsub"
)

// decimal is a codec of numbers in text; it panics on "panic".
var decimal = pubsub.Codec[int]{
	ContentType: "text/plain; charset=utf-8",
	Encode: func(n int) ([]byte, error) {
		if n < 0 {
			panic(errBoom)
		}
		return strconv.AppendInt(nil, int64(n), 10), nil
	},
	Decode: func(payload []byte) (int, error) {
		if string(payload) == "panic" {
			panic("no number")
		}
		return strconv.Atoi(string(payload))
	},
}

var numbers = pubsub.NewTopic("numbers", func(n int) string { return fmt.Sprint("key-", n%2) }, decimal)

// read has a topic read one message and returns the value and the verdict.
func read[T any](t *testing.T, topic pubsub.Topic[T], m pubsub.Message) (got []T, err error) {
	t.Helper()
	err = topic.Handle(func(_ context.Context, v T) error { got = append(got, v); return nil })(t.Context(), m)
	if err != nil {
		require.Empty(t, got)
		require.True(t, err.(interface{ Permanent() bool }).Permanent(), "a dead letter: %v", err)
	}
	return got, err
}

func TestTopicWithACodecOfItsOwn(t *testing.T) {
	m, err := numbers.Message(17)
	require.NoError(t, err)
	require.Equal(t, pubsub.Message{
		ID: m.ID, Topic: "numbers", Key: "key-1", Payload: []byte("17"),
		Header: pubsub.Header{"content-type": "text/plain; charset=utf-8"},
	}, m)
	require.Len(t, m.ID, 32)
	got, err := read(t, numbers, m)
	require.NoError(t, err)
	require.Equal(t, []int{17}, got)
	m.Header["content-type"] = "changed" // which must not reach the next one
	again, err := numbers.Message(17)
	require.NoError(t, err)
	require.Equal(t, "text/plain; charset=utf-8", again.Header["content-type"])
}

func TestAPanicOfACodecIsAnError(t *testing.T) {
	_, err := numbers.Message(-1)
	require.ErrorContains(t, err, `topic "numbers": codec panicked: boom`)
	require.Error(t, numbers.Publish(t.Context(), pubsub.New(newScripted(pubsub.Capabilities{})), 1, -1))
	_, err = read(t, numbers, pubsub.Message{Payload: []byte("panic")})
	require.ErrorContains(t, err, "codec panicked: no number")
}

func TestHandleRefusesAnotherContentType(t *testing.T) {
	json := pubsub.JSON[int]("numbers", nil)
	for _, tc := range []struct {
		topic pubsub.Topic[int]
		is    string
		ok    bool
	}{
		{numbers, "text/plain; charset=utf-8", true},
		{numbers, "TEXT/plain;charset=utf-8", true},
		{numbers, "text/plain", true},
		{numbers, "text/plain; format=flowed", true},
		{numbers, "text/plain; charset=utf-16", false},
		{numbers, "text/html; charset=utf-8", false},
		{numbers, "", false},
		{json, "application/json; charset=utf-8", true},
		{json, "application/jsonl", false},
		{json, "application/json;;", false},
	} {
		_, err := read(t, tc.topic, pubsub.Message{Payload: []byte("1"), Header: pubsub.Header{"content-type": tc.is}})
		if tc.ok {
			require.NoError(t, err, tc.is)
			continue
		}
		require.ErrorContains(t, err, fmt.Sprintf("content type %q", tc.is))
	}
	_, err := read(t, numbers, pubsub.Message{Payload: []byte("1")})
	require.NoError(t, err, "a missing header is accepted")
	anything := decimal
	anything.ContentType = ""
	_, err = read(t, pubsub.NewTopic("numbers", nil, anything), pubsub.Message{Payload: []byte("1"), Header: pubsub.Header{"content-type": "x/y"}})
	require.NoError(t, err)
}

func TestHandleRefusesAnotherSchemaVersion(t *testing.T) {
	second := numbers.Version("2")
	m, err := second.Message(5)
	require.NoError(t, err)
	require.Equal(t, pubsub.Header{"content-type": "text/plain; charset=utf-8", "schema-version": "2"}, m.Header)
	_, err = read(t, second, m)
	require.NoError(t, err)
	for _, other := range []string{"1", "2.0", ""} {
		m.Header["schema-version"] = other
		_, err = read(t, second, m)
		require.ErrorContains(t, err, fmt.Sprintf("schema version %q: this topic has \"2\"", other))
		_, err = read(t, numbers, m)
		require.NoError(t, err, "without a version of its own a topic has no opinion")
	}
	delete(m.Header, "schema-version")
	_, err = read(t, second, m)
	require.NoError(t, err, "a missing header is accepted")

	third := second.Version("3")
	m, err = third.Message(1)
	require.NoError(t, err)
	require.Equal(t, "3", m.Header["schema-version"])
	m, err = second.Message(1)
	require.NoError(t, err)
	require.Equal(t, "2", m.Header["schema-version"])
}

func TestHandleBatch(t *testing.T) {
	payloads := func(texts ...string) []pubsub.Message {
		var msgs []pubsub.Message
		for _, text := range texts {
			msgs = append(msgs, pubsub.Message{Payload: []byte(text)})
		}
		return msgs
	}
	var got []int
	var result error
	handler := numbers.HandleBatch(func(_ context.Context, values []int) error { got = values; return result })
	isDead := func(err error) bool {
		p, ok := err.(interface{ Permanent() bool })
		return ok && p.Permanent()
	}

	require.NoError(t, handler(t.Context(), payloads("1", "2")))
	require.Equal(t, []int{1, 2}, got)
	result = errBoom
	require.Equal(t, errBoom, handler(t.Context(), payloads("1", "2")), "it is passed on as it is")

	mixed := payloads("x", "1", "panic", "2")
	for _, tc := range []struct{ result, one, two error }{
		{nil, nil, nil},
		{errBoom, errBoom, errBoom},
		{pubsub.BatchErrors{nil, errBoom}, nil, errBoom},
		{pubsub.BatchErrors{errBoom, nil}, errBoom, nil},
		{pubsub.BatchErrors{errBoom}, pubsub.BatchErrors{errBoom}, pubsub.BatchErrors{errBoom}},
	} {
		result = tc.result
		errs, ok := handler(t.Context(), mixed).(pubsub.BatchErrors)
		require.True(t, ok)
		require.Len(t, errs, 4)
		require.True(t, isDead(errs[0]) && isDead(errs[2]))
		require.Equal(t, []error{tc.one, tc.two}, []error{errs[1], errs[3]})
		require.Equal(t, []int{1, 2}, got)
	}

	got = nil
	errs, ok := handler(t.Context(), payloads("x", "y")).(pubsub.BatchErrors)
	require.True(t, ok)
	require.Len(t, errs, 2)
	require.Nil(t, got, "nothing to call it for")
}

func TestNewTopicRefusesWhatCannotWork(t *testing.T) {
	for want, codec := range map[string]pubsub.Codec[int]{
		"no Encode":    {Decode: decimal.Decode},
		"no Decode":    {Encode: decimal.Encode},
		"content type": {Decode: decimal.Decode, Encode: decimal.Encode, ContentType: "\xff"},
	} {
		require.Panics(t, func() { pubsub.NewTopic("t", nil, codec) }, want)
	}
	require.Panics(t, func() { pubsub.NewTopic("two words", nil, decimal) })
	require.Panics(t, func() { numbers.Version("") })
	require.Panics(t, func() { numbers.Version("\xff") })
	require.Panics(t, func() { numbers.HandleBatch(nil) })
}

// FuzzCodec feeds a decoder whatever somebody may have published: never a panic, an error is a dead letter, and what
// can be read can be written again and means the same.
func FuzzCodec(f *testing.F) {
	binary := pubsub.NewTopic("orders", nil, pubsub.Codec[order]{
		ContentType: "application/x-gob",
		Encode: func(o order) ([]byte, error) {
			var b bytes.Buffer
			err := gob.NewEncoder(&b).Encode(o)
			return b.Bytes(), err
		},
		Decode: func(payload []byte) (o order, err error) {
			err = gob.NewDecoder(bytes.NewReader(payload)).Decode(&o)
			return o, err
		},
	})
	good, err := binary.Message(order{ID: "a", Cents: 1})
	require.NoError(f, err)
	f.Add(good.Payload, "application/x-gob")
	f.Add([]byte("5"), "text/plain")
	f.Add([]byte(`{"id":"a"}`), "application/json; charset=utf-8")
	f.Add([]byte{}, "; =")
	f.Fuzz(func(t *testing.T, payload []byte, contentType string) {
		m := pubsub.Message{Payload: payload, Header: pubsub.Header{"content-type": contentType}}
		roundTrips(t, orders, m)
		roundTrips(t, binary, m)
		roundTrips(t, numbers, m)
	})
}

func roundTrips[T any](t *testing.T, topic pubsub.Topic[T], m pubsub.Message) {
	got, err := read(t, topic, m)
	if err != nil {
		return
	}
	again, err := topic.Message(got[0])
	if err != nil { // decimal refuses negative numbers
		require.ErrorContains(t, err, "panicked")
		return
	}
	back, err := read(t, topic, again)
	require.NoError(t, err)
	require.Equal(t, got, back)
}

func FuzzTopicName(f *testing.F) {
	for _, seed := range []string{"t", "a.b", "a..b", ".", "*", ">", "a b", "é", "a\x00", strings.Repeat("x", 250)} {
		f.Add(seed, seed)
	}
	f.Fuzz(func(t *testing.T, topic, group string) {
		m := pubsub.Message{Topic: topic}
		if m.Validate() == nil {
			requirePlain(t, topic)
		}
		if (pubsub.Subscription{Topic: topic, Group: group}).Validate() == nil {
			requirePlain(t, topic)
			require.NotContains(t, group, ".")
			requirePlain(t, pubsub.DeadLetterTopic(topic, group))
			dead := pubsub.Message{Topic: pubsub.DeadLetterTopic(topic, group)}
			require.NoError(t, dead.Validate(), "a dead letter must have somewhere to go")
		}
	})
}

// FuzzMessageHeader checks, otherwise than the package does, that no accepted header can break out of its line on the
// wire of NATS, or pass for one of a driver's own.
func FuzzMessageHeader(f *testing.F) {
	for _, seed := range []string{"a", "", "a b", "a:b", "ce-id", "ce_id", "CE-id", "a\r\nb", "é", "x.y_z~!#$&'*+^`|"} {
		f.Add(seed, seed)
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		m := pubsub.Message{Topic: "t", Header: pubsub.Header{name: value}}
		if m.Validate() != nil {
			return
		}
		require.NotEmpty(t, name)
		for _, c := range name {
			require.True(t, '!' <= c && c <= '~' && !strings.ContainsRune(`"(),/:;<=>?@[\]{}`, c), "%q", name)
		}
		lower := strings.ToLower(name)
		require.False(t, strings.HasPrefix(lower, "ce-") || strings.HasPrefix(lower, "ce_") || strings.HasPrefix(lower, "cloudevents_"))
		require.Equal(t, value, strings.ToValidUTF8(value, "?"))
	})
}

// requirePlain checks, otherwise than the package does, what every broker can spell: one that NATS would take as a
// subject of its own, RabbitMQ as a routing key, Kafka as a topic.
func requirePlain(t *testing.T, topic string) {
	t.Helper()
	require.Regexp(t, `\A[0-9A-Za-z_-]+(\.[0-9A-Za-z_-]+)*\z`, topic)
	require.LessOrEqual(t, len(topic), 249)
}

func TestCodecErrorIsKept(t *testing.T) {
	codec := decimal
	codec.Encode = func(int) ([]byte, error) { return nil, errBoom }
	codec.Decode = func([]byte) (int, error) { return 0, errBoom }
	topic := pubsub.NewTopic("t", nil, codec)
	_, err := topic.Message(1)
	require.ErrorIs(t, err, errBoom)
	_, err = read(t, topic, pubsub.Message{})
	require.ErrorIs(t, err, errBoom)
}
