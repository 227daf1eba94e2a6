package pubsub_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/pubsub"
)

func TestPublishFillsInAndCopies(t *testing.T) {
	d := newScripted(pubsub.Capabilities{})
	var sent []pubsub.Message
	d.publish = func(m []pubsub.Message) []error { sent = m; return nil }
	bus := pubsub.New(d)
	given := []pubsub.Message{{Topic: "t", Attempt: 7}, {Topic: "t", ID: "mine", Time: time.Unix(1, 0)}}
	require.NoError(t, bus.Publish(t.Context(), given...))
	require.Empty(t, given[0].ID)
	require.Len(t, sent[0].ID, 32)
	require.WithinDuration(t, time.Now(), sent[0].Time, time.Minute)
	require.Zero(t, sent[0].Attempt)
	require.Equal(t, given[1], sent[1])
	require.NoError(t, bus.Publish(t.Context()))
}

func TestPublishErrorNamesWhatFailed(t *testing.T) {
	d := newScripted(pubsub.Capabilities{})
	d.publish = func([]pubsub.Message) []error {
		return []error{nil, errBoom, fmt.Errorf("lost: %w", pubsub.ErrInDoubt)}
	}
	err := pubsub.New(d).Publish(t.Context(), pubsub.Message{Topic: "t"}, pubsub.Message{Topic: "t", ID: "b"}, pubsub.Message{Topic: "t", ID: "c"})
	var pe *pubsub.PublishError
	require.ErrorAs(t, err, &pe)
	require.Equal(t, 3, pe.Total)
	require.Len(t, pe.Failed, 2)
	require.Equal(t, pubsub.Failure{Index: 1, ID: "b", Err: errBoom}, pe.Failed[0])
	require.True(t, pe.Failed[1].InDoubt)
	require.ErrorIs(t, err, errBoom)
	require.ErrorIs(t, err, pubsub.ErrInDoubt)
	require.ErrorContains(t, err, "2 of 3")

	d.publish = func([]pubsub.Message) []error { return []error{nil} } // a driver that miscounts
	err = pubsub.New(d).Publish(t.Context(), pubsub.Message{Topic: "t"}, pubsub.Message{Topic: "t"})
	require.ErrorIs(t, err, pubsub.ErrInDoubt)

	d.publish = func(m []pubsub.Message) []error { return make([]error, len(m)) }
	require.NoError(t, pubsub.New(d).Publish(t.Context(), pubsub.Message{Topic: "t"}))
}

func TestNothingIsSentWhenAMessageIsInvalid(t *testing.T) {
	d := newScripted(pubsub.Capabilities{MaxPayload: 10})
	d.publish = func([]pubsub.Message) []error { t.Error("sent"); return nil }
	good := pubsub.Message{Topic: "t", Payload: make([]byte, 10)}
	for want, bad := range map[string]pubsub.Message{
		"topic":        {},
		"single dots":  {Topic: ".t"},
		"parts":        {Topic: "a/b"},
		"249":          {Topic: strings.Repeat("a", 250)},
		"UTF-8":        {Topic: "t", ID: "\xff"},
		"header name":  {Topic: "t", Header: pubsub.Header{"": ""}},
		"ce-":          {Topic: "t", Header: pubsub.Header{"ce_id": ""}},
		"Ce-":          {Topic: "t", Header: pubsub.Header{"Ce-Id": ""}},
		"cloudEvents_": {Topic: "t", Header: pubsub.Header{"cloudevents_id": ""}},
		"header \"a\"": {Topic: "t", Header: pubsub.Header{"a": "\xff"}},
		"at most 10":   {Topic: "t", Payload: make([]byte, 11)},
	} {
		err := pubsub.New(d).Publish(t.Context(), good, bad)
		var pe *pubsub.PublishError
		require.ErrorAs(t, err, &pe, want)
		require.Len(t, pe.Failed, 2)
		require.ErrorContains(t, pe.Failed[1].Err, want)
		require.True(t, pe.Failed[1].Err.(interface{ Permanent() bool }).Permanent())
		_, permanent := pe.Failed[0].Err.(interface{ Permanent() bool })
		require.False(t, permanent, "the good one may be published without the bad one")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, pubsub.New(d).Publish(ctx, good), context.Canceled)
}

func TestConstructorsRefuseNil(t *testing.T) {
	require.Panics(t, func() { pubsub.New(nil) })
	require.Panics(t, func() { pubsub.OnRetry(nil) })
	require.Panics(t, func() { pubsub.OnDeadLetter(nil) })
	require.Panics(t, func() { pubsub.JSON[int]("two words", nil) })
	require.Panics(t, func() { pubsub.JSON[int]("t", nil).Handle(nil) })
}

func TestVerdictErrors(t *testing.T) {
	require.NoError(t, pubsub.RetryAfter(time.Second, nil))
	require.NoError(t, pubsub.DeadLetter(nil))
	require.ErrorIs(t, pubsub.RetryAfter(time.Second, errBoom), errBoom)
	require.ErrorIs(t, pubsub.DeadLetter(errBoom), errBoom)
	require.Equal(t, "boom", pubsub.DeadLetter(errBoom).Error())
	require.Equal(t, "boom", pubsub.RetryAfter(0, errBoom).Error())
	require.True(t, pubsub.DeadLetter(errBoom).(interface{ Permanent() bool }).Permanent())
	require.True(t, (&pubsub.CapabilityError{}).Permanent())
	require.ErrorContains(t, &pubsub.CapabilityError{Driver: "d", Capability: "Ordered"}, "driver d lacks Ordered")
}

type order struct {
	ID    string `json:"id"`
	Cents int    `json:"cents"`
}

var orders = pubsub.JSON("orders.placed", func(o order) string { return o.ID })

func TestTopicRoundTrip(t *testing.T) {
	m, err := orders.Message(order{ID: "o-1", Cents: 5})
	require.NoError(t, err)
	require.Equal(t, "orders.placed", m.Topic)
	require.Equal(t, "o-1", m.Key)
	require.Equal(t, "application/json", m.Header["content-type"])
	require.JSONEq(t, `{"id":"o-1","cents":5}`, string(m.Payload))
	var got order
	handler := orders.Handle(func(_ context.Context, o order) error { got = o; return errBoom })
	require.ErrorIs(t, handler(t.Context(), m), errBoom)
	require.Equal(t, order{ID: "o-1", Cents: 5}, got)
	require.Equal(t, "orders.placed", orders.Name())
}

func TestUndecodablePayloadIsADeadLetter(t *testing.T) {
	handler := orders.Handle(func(context.Context, order) error { t.Error("called"); return nil })
	for _, payload := range []string{"", "{", `{"id":1}`, `{} {}`} {
		err := handler(t.Context(), pubsub.Message{Payload: []byte(payload)})
		require.ErrorContains(t, err, "undecodable")
		require.True(t, err.(interface{ Permanent() bool }).Permanent())
	}
}

func TestTopicPublishSendsAllOrNone(t *testing.T) {
	d := newScripted(pubsub.Capabilities{})
	var sent int
	d.publish = func(m []pubsub.Message) []error { sent += len(m); return nil }
	bus := pubsub.New(d)
	require.NoError(t, orders.Publish(t.Context(), bus, order{ID: "a"}, order{ID: "b"}))
	require.Equal(t, 2, sent)
	bad := pubsub.JSON[func()]("t", nil)
	require.Error(t, bad.Publish(t.Context(), bus, func() {}))
	require.Equal(t, 2, sent)
}

func FuzzTopicHandle(f *testing.F) {
	f.Add([]byte(`{"id":"a","cents":1}`))
	f.Add([]byte(`{"id":"a"`))
	f.Add([]byte{0xff})
	f.Fuzz(func(t *testing.T, payload []byte) {
		called := false
		err := orders.Handle(func(context.Context, order) error { called = true; return nil })(t.Context(), pubsub.Message{Payload: payload})
		if called == (err != nil) {
			t.Errorf("called %v with error %v", called, err)
		}
	})
}
