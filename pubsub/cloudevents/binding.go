package cloudevents

import (
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/backstay-go/backstay/pubsub"
)

// Binding is how a protocol carries CloudEvents in binary mode. It is immutable: use the ones below.
type Binding struct {
	prefix  string // of attributes' headers
	other   string // a further prefix that is read, or empty
	escaped bool   // values are percent-encoded
	folded  bool   // names of headers do not depend on case
	own     bool   // datacontenttype has a header as other attributes have
	names   names
}

// names are headers' names that every message needs.
type names struct{ version, id, source, typ, time, key, contentType string }

var (
	// NATS is the binding for headers of NATS.
	NATS = newBinding(Binding{prefix: "ce-", escaped: true, folded: true, own: true})
	// Kafka is the binding for headers of Kafka. The key of the record is the driver's affair.
	Kafka = newBinding(Binding{prefix: "ce_"})
	// AMQP is the binding for application properties of AMQP 1.0 and headers of AMQP 0.9.1, with values as strings.
	AMQP = newBinding(Binding{prefix: "cloudEvents_", other: "cloudEvents:"})
	// HTTP is the binding for headers of HTTP.
	HTTP = newBinding(Binding{prefix: "ce-", escaped: true, folded: true})
)

func newBinding(b Binding) *Binding {
	p := b.prefix
	b.names = names{p + attrVersion, p + attrID, p + attrSource, p + attrType, p + attrTime, p + attrKey, p + attrContentType}
	return &b
}

// Encode returns the headers of e, or says what cannot be written: a required attribute is empty, a name or time
// impossible, a header would be read as an attribute, or its content type as structured mode. The pairs have distinct
// names and no particular order; the values of Message.Header are as they are, and may need care on a protocol that does
// not carry all of UTF-8.
func (b *Binding) Encode(e Event) (iter.Seq2[string, string], error) {
	if err := e.check(b); err != nil {
		if err == ErrStructured {
			return nil, err
		}
		return nil, fmt.Errorf("cloudevents: %w", err)
	}
	return func(yield func(string, string) bool) {
		_ = b.fixed(&e, yield) && b.further(&e, yield)
	}, nil
}

// fixed yields the attributes that have a field.
func (b *Binding) fixed(e *Event, yield func(string, string) bool) bool {
	m := &e.Message
	return yield(b.names.version, version) &&
		yield(b.names.id, b.out(m.ID)) &&
		yield(b.names.source, b.out(e.Source)) &&
		yield(b.names.typ, b.out(m.Topic)) &&
		(m.Time.IsZero() || yield(b.names.time, m.Time.UTC().Format(time.RFC3339Nano))) &&
		(m.Key == "" || yield(b.names.key, b.out(m.Key)))
}

// further yields the other attributes and the headers.
func (b *Binding) further(e *Event, yield func(string, string) bool) bool {
	for name, value := range e.Attributes {
		if !yield(b.prefix+name, b.out(value)) {
			return false
		}
	}
	for name, value := range e.Message.Header {
		if name == ContentType && b.own && value != "" && !yield(b.names.contentType, b.out(value)) {
			return false
		}
		if !yield(name, value) {
			return false
		}
	}
	return true
}

func (b *Binding) out(value string) string {
	if b.escaped {
		return escape(value)
	}
	return value
}

// attribute is the name of the attribute that a header carries.
func (b *Binding) attribute(header string) (string, bool) {
	for _, prefix := range [2]string{b.prefix, b.other} {
		switch {
		case prefix == "" || len(header) < len(prefix):
		case header[:len(prefix)] == prefix:
			return header[len(prefix):], true
		case b.folded && strings.EqualFold(header[:len(prefix)], prefix):
			return header[len(prefix):], true
		}
	}
	return "", false
}

func (b *Binding) isAttribute(header string) bool {
	_, ok := b.attribute(header)
	return ok
}

// contentTypeName is the name, in a Message, of a header whose name is ContentType in some case: where names do not depend
// on it and the header is an attribute, it has only one.
func (b *Binding) contentTypeName(spelled string) string {
	if b.folded && !b.own {
		return ContentType
	}
	return spelled
}

// Decode makes the event that headers describe. A header that is there several times has its values joined by commas,
// unless it is an attribute. The event holds what could be read also when there is an error, which is ErrStructured or
// lists all faults; its Header is never nil.
func (b *Binding) Decode(headers iter.Seq2[string, string]) (Event, error) {
	d := decoder{binding: b, event: Event{Message: pubsub.Message{Header: pubsub.Header{}}}, seen: make(map[string]bool, 8)}
	for name, value := range headers {
		if attribute, ok := b.attribute(name); ok {
			d.attribute(attribute, value)
			continue
		}
		d.header(name, value)
	}
	return d.finish()
}

// decoder collects an event.
type decoder struct {
	binding     *Binding
	event       Event
	seen        map[string]bool // attributes
	contentType string          // from the attribute datacontenttype
	structured  bool
	errs        []error
}

func (d *decoder) fault(format string, args ...any) {
	d.errs = append(d.errs, fmt.Errorf("cloudevents: "+format, args...))
}

// header takes what is not an attribute.
func (d *decoder) header(name, value string) {
	h := d.event.Message.Header
	if strings.EqualFold(name, ContentType) {
		d.structured = d.structured || isStructured(value)
		name = d.binding.contentTypeName(name)
	}
	if !utf8.ValidString(name) || !utf8.ValidString(value) {
		d.fault("header %q is not valid UTF-8", name)
		return
	}
	if old, ok := h[name]; ok {
		value = old + ", " + value
	}
	h[name] = value
}

// attribute takes one attribute.
func (d *decoder) attribute(name, value string) {
	if d.binding.folded {
		name = strings.ToLower(name)
	}
	if d.binding.escaped {
		value = unescape(value)
	}
	switch {
	case !utf8.ValidString(value):
		d.fault("attribute %s is not valid UTF-8", name)
		return
	case d.seen[name]:
		d.fault("attribute %s is there twice", name)
		return
	}
	d.seen[name] = true
	m := &d.event.Message
	switch name {
	case attrVersion:
		if value != version {
			d.fault("attribute specversion is %q and not %s", value, version)
		}
	case attrID:
		m.ID = value
	case attrSource:
		d.event.Source = value
	case attrType:
		m.Topic = value
	case attrKey:
		m.Key = value
	case attrContentType:
		d.contentType = value
	case attrTime:
		d.time(value)
	default:
		d.other(name, value)
	}
}

func (d *decoder) time(value string) {
	t, err := parseTime(value)
	if err != nil {
		d.fault("%w", err)
		return
	}
	d.event.Message.Time = t
}

func (d *decoder) other(name, value string) {
	if err := checkAttribute(name, value); err != nil {
		d.fault("%w", err)
		return
	}
	if d.event.Attributes == nil {
		d.event.Attributes = make(map[string]string)
	}
	d.event.Attributes[name] = value
}

// finish looks at the whole.
func (d *decoder) finish() (Event, error) {
	m := &d.event.Message
	if _, ok := m.Header[ContentType]; d.contentType != "" && (d.binding.own || !ok) {
		m.Header[ContentType] = d.contentType
		d.structured = d.structured || isStructured(d.contentType)
	}
	if d.structured {
		return d.event, ErrStructured
	}
	if !d.seen[attrVersion] {
		d.fault("attribute specversion is missing")
	}
	if d.errs == nil {
		if err := d.event.check(d.binding); err != nil {
			d.fault("%w", err)
		}
	}
	return d.event, errors.Join(d.errs...)
}
