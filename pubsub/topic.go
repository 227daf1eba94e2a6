package pubsub

import (
	"context"
	"encoding/json"
	"fmt"
)

// Topic is a typed view of a topic: it turns values into messages and messages into values. Make it with JSON, once, as
// a package-level variable shared by publisher and consumer. It is immutable and safe for concurrent use.
type Topic[T any] struct {
	name string
	key  func(T) string
}

// JSON makes a Topic whose payloads are JSON. The function key gives the order key of a value; nil means no key. It
// panics on a name that no message could be published to.
func JSON[T any](topic string, key func(T) string) Topic[T] {
	if err := checkTopic(topic); err != nil {
		panic("pubsub: JSON: " + err.Error())
	}
	if key == nil {
		key = func(T) string { return "" }
	}
	return Topic[T]{name: topic, key: key}
}

// Name is the topic's name.
func (t Topic[T]) Name() string { return t.name }

// Message makes the message for a value, for instance to put it into an outbox. Its ID is filled in. The error is that
// of the encoding.
func (t Topic[T]) Message(v T) (Message, error) {
	payload, err := json.Marshal(v)
	if err != nil {
		return Message{}, fmt.Errorf("pubsub: topic %q: %w", t.name, err)
	}
	return Message{
		ID: newID(), Topic: t.name, Key: t.key(v), Payload: payload,
		Header: Header{"content-type": "application/json"},
	}, nil
}

// Publish sends values. If one cannot be encoded, none is sent. Otherwise see Bus.Publish.
func (t Topic[T]) Publish(ctx context.Context, p Publisher, values ...T) error {
	msgs := make([]Message, len(values))
	for i, v := range values {
		m, err := t.Message(v)
		if err != nil {
			return err
		}
		msgs[i] = m
	}
	return p.Publish(ctx, msgs...)
}

// Handle makes a Handler of a function on values. A payload that cannot be decoded becomes a dead letter at once, since
// no further attempt would read it. It panics on a nil function.
func (t Topic[T]) Handle(fn func(ctx context.Context, v T) error) Handler {
	if fn == nil {
		panic("pubsub: Topic.Handle(nil)")
	}
	return func(ctx context.Context, m Message) error {
		var v T
		if err := json.Unmarshal(m.Payload, &v); err != nil {
			return DeadLetter(fmt.Errorf("pubsub: topic %q: undecodable payload: %w", t.name, err))
		}
		return fn(ctx, v)
	}
}
