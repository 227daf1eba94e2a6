package cloudevents_test

import (
	"maps"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/pubsub/cloudevents"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func bindings() map[string]*cloudevents.Binding {
	return map[string]*cloudevents.Binding{
		"NATS": cloudevents.NATS, "Kafka": cloudevents.Kafka, "AMQP": cloudevents.AMQP, "HTTP": cloudevents.HTTP,
	}
}

// full is an event with everything.
func full() cloudevents.Event {
	return cloudevents.Event{
		Message: pubsub.Message{
			ID: "Euro € 😀", Topic: "orders.placed", Key: `k "7" 100%`,
			Time:   time.Date(2026, 3, 4, 5, 6, 7, 8, time.UTC),
			Header: pubsub.Header{"content-type": "application/json; charset=utf-8", "traceparent": "00-…", "X-Other": "Ü"},
		},
		Source:     "https://example.org/shop?a=b",
		Attributes: map[string]string{"subject": "o-1", "dataschema": "https://example.org/schema", "sequence": "17"},
	}
}

func TestEachBindingHasItsNamesAndValues(t *testing.T) {
	const escapedID, escapedKey = "Euro%20%E2%82%AC%20%F0%9F%98%80", "k%20%227%22%20100%25"
	for name, want := range map[string]map[string]string{
		"NATS": {
			"ce-specversion": "1.0", "ce-id": escapedID, "ce-source": "https://example.org/shop?a=b", "ce-type": "orders.placed",
			"ce-time": "2026-03-04T05:06:07.000000008Z", "ce-partitionkey": escapedKey,
			"ce-subject": "o-1", "ce-dataschema": "https://example.org/schema", "ce-sequence": "17",
			"ce-datacontenttype": "application/json;%20charset=utf-8",
		},
		"HTTP": {
			"ce-specversion": "1.0", "ce-id": escapedID, "ce-source": "https://example.org/shop?a=b", "ce-type": "orders.placed",
			"ce-time": "2026-03-04T05:06:07.000000008Z", "ce-partitionkey": escapedKey,
			"ce-subject": "o-1", "ce-dataschema": "https://example.org/schema", "ce-sequence": "17",
		},
		"Kafka": {
			"ce_specversion": "1.0", "ce_id": "Euro € 😀", "ce_source": "https://example.org/shop?a=b", "ce_type": "orders.placed",
			"ce_time": "2026-03-04T05:06:07.000000008Z", "ce_partitionkey": `k "7" 100%`,
			"ce_subject": "o-1", "ce_dataschema": "https://example.org/schema", "ce_sequence": "17",
		},
		"AMQP": {
			"cloudEvents_specversion": "1.0", "cloudEvents_id": "Euro € 😀", "cloudEvents_source": "https://example.org/shop?a=b",
			"cloudEvents_type": "orders.placed", "cloudEvents_time": "2026-03-04T05:06:07.000000008Z",
			"cloudEvents_partitionkey": `k "7" 100%`,
			"cloudEvents_subject":      "o-1", "cloudEvents_dataschema": "https://example.org/schema", "cloudEvents_sequence": "17",
		},
	} {
		maps.Copy(want, full().Message.Header)
		headers, err := bindings()[name].Encode(full())
		require.NoError(t, err)
		require.Equal(t, want, maps.Collect(headers), name)
		for range headers {
			break // a caller that stops early
		}
		got, err := bindings()[name].Decode(maps.All(want))
		require.NoError(t, err)
		require.Equal(t, full(), got, name)
	}
}

func TestOptionalAttributesAreLeftOut(t *testing.T) {
	e := cloudevents.Event{Message: pubsub.Message{ID: "1", Topic: "t", Header: pubsub.Header{}}, Source: "/s"}
	headers, err := cloudevents.NATS.Encode(e)
	require.NoError(t, err)
	require.Equal(t, map[string]string{"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "t"}, maps.Collect(headers))
	got, err := cloudevents.NATS.Decode(headers)
	require.NoError(t, err)
	require.Equal(t, e, got)
}

func TestEncodeRefusesWhatCannotBeRead(t *testing.T) {
	for name, change := range map[string]func(*cloudevents.Event){
		"id":              func(e *cloudevents.Event) { e.Message.ID = "" },
		"type":            func(e *cloudevents.Event) { e.Message.Topic = "" },
		"no source":       func(e *cloudevents.Event) { e.Source = "" },
		"source":          func(e *cloudevents.Event) { e.Source = "http://a b/%zz" },
		"UTF-8 id":        func(e *cloudevents.Event) { e.Message.ID = "\xff" },
		"UTF-8 key":       func(e *cloudevents.Event) { e.Message.Key = "\xff" },
		"UTF-8 attribute": func(e *cloudevents.Event) { e.Attributes["ext"] = "\xff" },
		"UTF-8 header":    func(e *cloudevents.Event) { e.Message.Header["a"] = "\xff" },
		"year":            func(e *cloudevents.Event) { e.Message.Time = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
		"year in UTC": func(e *cloudevents.Event) {
			e.Message.Time = time.Date(9999, 12, 31, 23, 0, 0, 0, time.FixedZone("", -7200))
		},
		"subject":    func(e *cloudevents.Event) { e.Attributes["subject"] = "" },
		"upper case": func(e *cloudevents.Event) { e.Attributes["Ext"] = "1" },
		"no name":    func(e *cloudevents.Event) { e.Attributes[""] = "1" },
		"known name": func(e *cloudevents.Event) { e.Attributes["partitionkey"] = "1" },
		"data":       func(e *cloudevents.Event) { e.Attributes["data"] = "1" },
		"structured": func(e *cloudevents.Event) { e.Message.Header["content-type"] = "Application/CloudEvents+json" },
		"batched":    func(e *cloudevents.Event) { e.Message.Header["Content-Type"] = " application/cloudevents-batch+json" },
	} {
		for binding, b := range bindings() {
			e := full()
			change(&e)
			_, err := b.Encode(e)
			require.Error(t, err, "%s on %s", name, binding)
		}
	}
	for binding, header := range map[string][]string{
		"NATS": {"ce-id", "CE-Id", "ce-x"}, "HTTP": {"Ce-source"}, "Kafka": {"ce_id"}, "AMQP": {"cloudEvents_id", "cloudEvents:x"},
	} {
		for _, name := range header {
			e := full()
			e.Message.Header[name] = "1"
			_, err := bindings()[binding].Encode(e)
			require.ErrorContains(t, err, "attribute", "%s on %s", name, binding)
		}
	}
}

// required are the headers of the least event, with changes.
func required(change map[string]string) map[string]string {
	h := map[string]string{"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "t"}
	for name, value := range change {
		if value == "" {
			delete(h, name)
			continue
		}
		h[name] = value
	}
	return h
}

func TestDecodeRefusesWhatIsNoEvent(t *testing.T) {
	for _, change := range []map[string]string{
		{"ce-specversion": ""}, {"ce-specversion": "0.3"}, {"ce-specversion": "1.1"}, {"ce-id": ""}, {"ce-source": ""}, {"ce-type": ""},
		{"ce-time": "yesterday"}, {"ce-time": "2026-03-04"}, {"ce-time": "2026-03-04T05:06:07"}, {"ce-id": "%C0%A0"}, {"ce-id": "\xff"},
		{"CE-ID": "2"}, {"ce-": "x"}, {"ce-a_b": "x"}, {"ce-data": "x"}, {"a": "\xff"}, {"ce-source": "http://a b/"},
	} {
		got, err := cloudevents.NATS.Decode(maps.All(required(change)))
		require.Error(t, err, "%v", change)
		require.NotErrorIs(t, err, cloudevents.ErrStructured)
		if _, changed := change["ce-type"]; !changed {
			require.Equal(t, "t", got.Message.Topic, "what could be read is there")
		}
	}
	got, err := cloudevents.NATS.Decode(maps.All(map[string]string{"a": "b", "ce-id": "7", "ce-time": "?"}))
	require.ErrorContains(t, err, "specversion is missing")
	require.ErrorContains(t, err, `attribute time: "?"`, "all faults")
	require.Equal(t, cloudevents.Event{Message: pubsub.Message{ID: "7", Header: pubsub.Header{"a": "b"}}}, got)
}

func TestStructuredModeIsRefused(t *testing.T) {
	for _, h := range []map[string]string{
		{"content-type": "application/cloudevents+json; charset=UTF-8"}, {"Content-Type": "APPLICATION/CLOUDEVENTS"},
		{"ce-datacontenttype": "application/cloudevents+json"}, {"content-type": "application/cloudevents-batch+json"},
	} {
		_, err := cloudevents.NATS.Decode(maps.All(required(h)))
		require.ErrorIs(t, err, cloudevents.ErrStructured, "%v", h)
	}
}

func TestValuesOfOtherProducersAreRead(t *testing.T) {
	for value, want := range map[string]string{
		"%45uro%20%e2%82%ac": "Euro €", `"a b"`: "a b", `"a \"b\" \\"`: `a "b" \`, "100%": "100%", "%zz%4": "%zz%4", "%2541": "%41",
		`"a%20b"`: "a b", `"`: `"`,
	} {
		got, err := cloudevents.HTTP.Decode(maps.All(required(map[string]string{"ce-id": value})))
		require.NoError(t, err)
		require.Equal(t, want, got.Message.ID, value)
	}
	raw := map[string]string{"ce_specversion": "1.0", "ce_id": "%41 %", "ce_source": "/s", "ce_type": "t"}
	got, err := cloudevents.Kafka.Decode(maps.All(raw))
	require.NoError(t, err)
	require.Equal(t, "%41 %", got.Message.ID, "Kafka carries UTF-8 as it is")

	got, err = cloudevents.HTTP.Decode(maps.All(map[string]string{
		"Ce-Specversion": "1.0", "CE-ID": "1", "Ce-Source": "/s", "Ce-Type": "t", "Ce-Time": "2026-03-04t05:06:07.5+02:00", "Ce-Empty": "",
		"Ce-Datacontenttype": "text/plain",
	}))
	require.NoError(t, err)
	require.Equal(t, cloudevents.Event{
		Message: pubsub.Message{ID: "1", Topic: "t", Time: time.Date(2026, 3, 4, 3, 6, 7, 5e8, time.UTC), Header: pubsub.Header{"content-type": "text/plain"}},
		Source:  "/s", Attributes: map[string]string{"empty": ""},
	}, got)

	got, err = cloudevents.HTTP.Decode(maps.All(required(map[string]string{"Content-Type": "text/plain"})))
	require.NoError(t, err)
	require.Equal(t, pubsub.Header{"content-type": "text/plain"}, got.Message.Header)
	got.Message.Header = pubsub.Header{"Content-Type": "text/plain"}
	_, err = cloudevents.HTTP.Encode(got)
	require.ErrorContains(t, err, "must be spelled")
	headers, err := cloudevents.NATS.Encode(got)
	require.NoError(t, err)
	require.Contains(t, maps.Collect(headers), "Content-Type", "NATS keeps names as they are")

	got, err = cloudevents.AMQP.Decode(maps.All(map[string]string{
		"cloudEvents:specversion": "1.0", "cloudEvents:id": "1", "cloudEvents_source": "/s", "cloudEvents:type": "t", "ce-id": "a header",
	}))
	require.NoError(t, err)
	require.Equal(t, "1", got.Message.ID)
	require.Equal(t, pubsub.Header{"ce-id": "a header"}, got.Message.Header)
}

func TestRepeatedHeaders(t *testing.T) {
	pairs := func(repeated string) func(yield func(string, string) bool) {
		return func(yield func(string, string) bool) {
			for name, value := range required(nil) {
				yield(name, value)
			}
			yield(repeated, "1")
			yield(repeated, "2")
		}
	}
	got, err := cloudevents.NATS.Decode(pairs("via"))
	require.NoError(t, err)
	require.Equal(t, pubsub.Header{"via": "1, 2"}, got.Message.Header)
	_, err = cloudevents.NATS.Decode(pairs("ce-x"))
	require.ErrorContains(t, err, "twice")
}

func FuzzEncodeDecodeIsIdentity(f *testing.F) {
	f.Add("id", "a.type", "key", "/source", int64(1), "name", "value", "ext", "more", "application/json")
	f.Add(`"quoted"`, "%41", "line\r\nInjected: x", "urn:x", int64(-1), "Ce-Id", " ", "subject", "%", "text/plain; a=\"b\"")
	f.Add("é", "t", "", "/", int64(0), "cloudEvents_x", "\x00", "ce", "", "")
	f.Fuzz(func(t *testing.T, id, typ, key, source string, nanos int64, header, value, attribute, attributeValue, contentType string) {
		e := cloudevents.Event{
			Message: pubsub.Message{ID: id, Topic: typ, Key: key, Time: time.Unix(0, nanos).UTC(), Header: pubsub.Header{header: value}},
			Source:  source, Attributes: map[string]string{attribute: attributeValue},
		}
		if contentType != "" {
			e.Message.Header["content-type"] = contentType
		}
		for name, b := range bindings() {
			headers, err := b.Encode(e)
			if err != nil {
				continue
			}
			sent := maps.Collect(headers)
			for h, v := range sent {
				if strings.HasPrefix(h, "ce-") && (name == "NATS" || name == "HTTP") && strings.ContainsFunc(v, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' }) {
					t.Fatalf("%s: header %s is not escaped: %q", name, h, v)
				}
			}
			got, err := b.Decode(maps.All(sent))
			require.NoError(t, err, name)
			require.Equal(t, e, got, name)
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add("1.0", "id", "/s", "t", "2026-03-04T05:06:07Z", "ce-x", "1", "content-type", "text/plain")
	f.Add("1.0", `"\`, "%", "t", "0000-01-01t00:00:00-23:59", "CE-ID", "", "Content-Type", "application/cloudevents")
	f.Fuzz(func(t *testing.T, version, id, source, typ, stamp, name1, value1, name2, value2 string) {
		for name, b := range bindings() {
			prefix := map[string]string{"NATS": "ce-", "HTTP": "ce-", "Kafka": "ce_", "AMQP": "cloudEvents:"}[name]
			got, err := b.Decode(maps.All(map[string]string{
				prefix + "specversion": version, prefix + "id": id, prefix + "source": source, prefix + "type": typ,
				prefix + "time": stamp, name1: value1, name2: value2,
			}))
			require.True(t, utf8.ValidString(got.Message.ID+got.Message.Key+got.Message.Topic+got.Source))
			if err != nil {
				continue
			}
			headers, err := b.Encode(got)
			require.NoError(t, err, "what is read can be written")
			again, err := b.Decode(headers)
			require.NoError(t, err)
			require.Equal(t, got, again)
		}
	})
}
