package pubsub

import (
	"context"
	"fmt"
	"maps"
	"unicode/utf8"
)

// Headers that a Topic writes and checks.
const (
	headerContentType = "content-type"
	headerVersion     = "schema-version"
)

// Topic is a typed view of a topic: it turns values into messages and messages into values. Make it with JSON or
// NewTopic, once, as a package-level variable shared by publisher and consumer. It is immutable and safe for concurrent
// use.
type Topic[T any] struct {
	name   string
	key    func(T) string
	codec  Codec[T]
	header Header // of every message; not to be changed
}

// NewTopic makes a Topic whose payloads codec writes and reads. The function key gives the order key of a value; nil
// means no key. It panics on a name that no message could be published to and on a codec that lacks a function.
func NewTopic[T any](name string, key func(T) string, codec Codec[T]) Topic[T] {
	if err := checkTopic(name); err != nil {
		panic("pubsub: NewTopic: " + err.Error())
	}
	if codec.Encode == nil || codec.Decode == nil || !utf8.ValidString(codec.ContentType) {
		panic("pubsub: NewTopic: the codec must have Encode, Decode and a ContentType in UTF-8")
	}
	if key == nil {
		key = func(T) string { return "" }
	}
	t := Topic[T]{name: name, key: key, codec: codec, header: make(Header)}
	if codec.ContentType != "" {
		t.header[headerContentType] = codec.ContentType
	}
	return t
}

// JSON makes a Topic whose payloads are JSON. See NewTopic.
func JSON[T any](topic string, key func(T) string) Topic[T] {
	return NewTopic(topic, key, JSONCodec[T]())
}

// Version returns the same Topic for one version of the schema of T: its messages carry it in the header
// "schema-version", and its handlers refuse those that carry another. Change it when old consumers must not read what
// new publishers write. It panics on a version that is empty or not valid UTF-8.
func (t Topic[T]) Version(version string) Topic[T] {
	if version == "" || !utf8.ValidString(version) {
		panic(fmt.Sprintf("pubsub: topic %q: Version(%q)", t.name, version))
	}
	t.header = maps.Clone(t.header)
	t.header[headerVersion] = version
	return t
}

// Name is the topic's name.
func (t Topic[T]) Name() string { return t.name }

// Message makes the message for a value, for instance to put it into an outbox. Its ID is filled in. The error is that
// of the encoding.
func (t Topic[T]) Message(v T) (Message, error) {
	payload, err := t.codec.encode(v)
	if err != nil {
		return Message{}, fmt.Errorf("pubsub: topic %q: %w", t.name, err)
	}
	return Message{ID: newID(), Topic: t.name, Key: t.key(v), Header: maps.Clone(t.header), Payload: payload}, nil
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

// Handle makes a Handler of a function on values. A message that cannot be read becomes a dead letter at once, since no
// further attempt would read it: its payload cannot be decoded, or a header says that it has another content type or
// another schema version than the Topic's. Without the header it is taken to be right. It panics on a nil function.
func (t Topic[T]) Handle(fn func(ctx context.Context, v T) error) Handler {
	if fn == nil {
		panic("pubsub: Topic.Handle(nil)")
	}
	return func(ctx context.Context, m Message) error {
		v, err := t.value(&m)
		if err != nil {
			return err
		}
		return fn(ctx, v)
	}
}

// HandleBatch makes a BatchHandler of a function on values, which gets those of the messages that can be read; the
// others become dead letters, as with Handle. Its result may be BatchErrors with an entry for each value. It panics on
// a nil function.
func (t Topic[T]) HandleBatch(fn func(ctx context.Context, values []T) error) BatchHandler {
	if fn == nil {
		panic("pubsub: Topic.HandleBatch(nil)")
	}
	return func(ctx context.Context, msgs []Message) error {
		values := make([]T, 0, len(msgs))
		errs := make(BatchErrors, len(msgs))
		for i := range msgs {
			v, err := t.value(&msgs[i])
			if errs[i] = err; err == nil {
				values = append(values, v)
			}
		}
		if len(values) == 0 {
			return errs
		}
		err := fn(ctx, values)
		if len(values) == len(msgs) {
			return err
		}
		return errs.fill(err, len(values))
	}
}

// fill gives the entries that are still nil, which are n, the verdict of err.
func (e BatchErrors) fill(err error, n int) error {
	each, ok := err.(BatchErrors)
	ok = ok && len(each) == n
	next := 0
	for i := range e {
		switch {
		case e[i] != nil:
		case ok:
			e[i] = each[next]
			next++
		default:
			e[i] = err
		}
	}
	return e
}

// value reads a message.
func (t *Topic[T]) value(m *Message) (v T, err error) {
	if got, ok := m.Header[headerContentType]; ok && t.codec.ContentType != "" && !accepts(t.codec.ContentType, got) {
		return v, t.unreadable("content type %q: this topic has %q", got, t.codec.ContentType)
	}
	want, versioned := t.header[headerVersion]
	if got, ok := m.Header[headerVersion]; ok && versioned && got != want {
		return v, t.unreadable("schema version %q: this topic has %q", got, want)
	}
	if v, err = t.codec.decode(m.Payload); err != nil {
		return v, t.unreadable("undecodable payload: %w", err)
	}
	return v, nil
}

func (t *Topic[T]) unreadable(format string, args ...any) error {
	return DeadLetter(fmt.Errorf("pubsub: topic %q: "+format, append([]any{t.name}, args...)...))
}
