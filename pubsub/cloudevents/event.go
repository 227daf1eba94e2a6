package cloudevents

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/backstay-go/backstay/pubsub"
)

// Names of the attributes that have a place of their own in an Event.
const (
	attrVersion     = "specversion"
	attrID          = "id"
	attrSource      = "source"
	attrType        = "type"
	attrTime        = "time"
	attrKey         = "partitionkey"
	attrContentType = "datacontenttype"
)

// version is the one of CloudEvents that is written and read.
const version = "1.0"

// ContentType is the name of the header that is the attribute datacontenttype, in a Message and on the wire. On AMQP the
// pair with this name is the property content-type, not an application property.
const ContentType = "content-type"

// ErrStructured says that the message is a CloudEvent in structured or batched mode: its attributes are in its body.
var ErrStructured = errors.New("cloudevents: structured and batched mode are not supported")

// Event is a CloudEvent in binary mode: a message and what a message has no field for.
type Event struct {
	// Message is the message. Its Topic is the attribute type; the names in its Header are not those of attributes.
	Message pubsub.Message
	// Source says where the event happened: a URI reference that is not empty, such as "/shop" or
	// "https://example.org/shop". Source and ID together are unique.
	Source string
	// Attributes are the others by name: subject, dataschema and extensions. Names have lower-case ASCII letters and
	// digits.
	Attributes map[string]string
}

// check says what makes e impossible to write with the binding.
func (e *Event) check(b *Binding) error {
	m := &e.Message
	for _, required := range [...][2]string{{attrID, m.ID}, {attrSource, e.Source}, {attrType, m.Topic}} {
		if required[1] == "" {
			return fmt.Errorf("attribute %s is empty", required[0])
		}
	}
	if _, err := url.Parse(e.Source); err != nil {
		return fmt.Errorf("attribute source: %w", err)
	}
	if y := m.Time.UTC().Year(); y < 0 || y > 9999 {
		return fmt.Errorf("attribute time: the year %d has no RFC 3339 form", y)
	}
	for _, value := range [...]string{m.ID, e.Source, m.Topic, m.Key} {
		if !utf8.ValidString(value) {
			return fmt.Errorf("%q is not valid UTF-8", value)
		}
	}
	for name, value := range e.Attributes {
		if err := checkAttribute(name, value); err != nil {
			return err
		}
	}
	for name, value := range m.Header {
		if b.isAttribute(name) {
			return fmt.Errorf("header %q would be read as an attribute", name)
		}
		if strings.EqualFold(name, ContentType) {
			if b.contentTypeName(name) != name {
				return fmt.Errorf("header %q must be spelled %s", name, ContentType)
			}
			if isStructured(value) {
				return ErrStructured
			}
		}
		if !utf8.ValidString(name) || !utf8.ValidString(value) {
			return fmt.Errorf("header %q is not valid UTF-8", name)
		}
	}
	return nil
}

// checkAttribute is about one of Event.Attributes.
func checkAttribute(name, value string) error {
	switch name {
	case attrVersion, attrID, attrSource, attrType, attrTime, attrKey, attrContentType, "data", "":
		return fmt.Errorf("%q is not the name of a further attribute", name)
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return fmt.Errorf("attribute name %q: it must have lower-case letters and digits", name)
		}
	}
	if value == "" && (name == "subject" || name == "dataschema") {
		return fmt.Errorf("attribute %s is empty", name)
	}
	if !utf8.ValidString(value) {
		return fmt.Errorf("attribute %s is not valid UTF-8", name)
	}
	return nil
}

// isStructured reports whether a content type is that of an event format.
func isStructured(contentType string) bool {
	const media = "application/cloudevents"
	contentType = strings.TrimLeft(contentType, " \t")
	return len(contentType) >= len(media) && strings.EqualFold(contentType[:len(media)], media)
}

// parseTime reads a timestamp; RFC 3339 allows its letters in lower case.
func parseTime(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339Nano, strings.ToUpper(s))
	if err != nil {
		return time.Time{}, fmt.Errorf("attribute time: %q is not as RFC 3339 has it", s)
	}
	return t.UTC(), nil
}
