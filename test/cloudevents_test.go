package test

import (
	"bytes"
	"io"
	"maps"
	"net/http"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/binding"
	"github.com/cloudevents/sdk-go/v2/binding/spec"
	"github.com/cloudevents/sdk-go/v2/event"
	cehttp "github.com/cloudevents/sdk-go/v2/protocol/http"
	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/pubsub/cloudevents"
)

func sampleEvent() cloudevents.Event {
	return cloudevents.Event{
		Message: pubsub.Message{
			ID: "o-1", Topic: "orders.placed", Key: "customer-7", Payload: []byte(`{"order":"o-1"}`),
			Time:   time.Date(2026, 3, 4, 5, 6, 7, 8, time.UTC),
			Header: pubsub.Header{"content-type": "application/json; charset=utf-8"},
		},
		Source:     "https://example.org/shop?a=b",
		Attributes: map[string]string{"subject": "basket/4", "dataschema": "https://example.org/schema", "sequence": "17"},
	}
}

// requireSame compares an event of ours with one of the SDK's, attribute by attribute.
func requireSame(t *testing.T, ours cloudevents.Event, theirs *event.Event) {
	t.Helper()
	require.NoError(t, theirs.Validate())
	m := ours.Message
	require.Equal(t, "1.0", theirs.SpecVersion())
	require.Equal(t, m.ID, theirs.ID())
	require.Equal(t, m.Topic, theirs.Type())
	require.Equal(t, ours.Source, theirs.Source())
	require.True(t, m.Time.Equal(theirs.Time()), "%s is not %s", m.Time, theirs.Time())
	require.Equal(t, m.Header["content-type"], theirs.DataContentType())
	require.Equal(t, ours.Attributes["subject"], theirs.Subject())
	require.Equal(t, ours.Attributes["dataschema"], theirs.DataSchema())
	require.Equal(t, map[string]any{"partitionkey": m.Key, "sequence": ours.Attributes["sequence"]}, theirs.Extensions())
}

// TestTheCloudEventsSDKReadsOurHeaders gives the headers of each binding to the SDK's own table of attributes.
func TestTheCloudEventsSDKReadsOurHeaders(t *testing.T) {
	for prefix, b := range map[string]*cloudevents.Binding{
		"ce-": cloudevents.HTTP, "ce_": cloudevents.Kafka, "cloudEvents_": cloudevents.AMQP,
	} {
		ours := sampleEvent()
		if b != cloudevents.HTTP { // the table knows nothing of percent-encoding
			ours.Message.ID, ours.Message.Key = `Euro € "100%"`, "ключ"
		}
		headers, err := b.Encode(ours)
		require.NoError(t, err)
		sent := maps.Collect(headers)
		versions := spec.WithPrefix(prefix)
		version := versions.Version(sent[versions.PrefixedSpecVersionName()])
		require.NotNil(t, version, prefix)
		theirs := event.Event{Context: version.NewContext()}
		for name, value := range sent {
			if name == cloudevents.ContentType {
				name = prefix + "datacontenttype"
			}
			require.NoError(t, version.SetAttribute(theirs.Context, name, value))
		}
		requireSame(t, ours, &theirs)
	}
}

// TestTheCloudEventsSDKReadsOurNATSHeaders looks at what differs from HTTP: datacontenttype has its own header.
func TestTheCloudEventsSDKReadsOurNATSHeaders(t *testing.T) {
	headers, err := cloudevents.NATS.Encode(sampleEvent())
	require.NoError(t, err)
	sent := maps.Collect(headers)
	delete(sent, cloudevents.ContentType)
	version := spec.WithPrefix("ce-").Version("1.0")
	theirs := event.Event{Context: version.NewContext()}
	for name, value := range sent {
		if name == "ce-datacontenttype" {
			require.Equal(t, "application/json;%20charset=utf-8", value)
			value = "application/json; charset=utf-8"
		}
		require.NoError(t, version.SetAttribute(theirs.Context, name, value))
	}
	requireSame(t, sampleEvent(), &theirs)
}

func TestTheCloudEventsSDKReceivesOurHTTPRequest(t *testing.T) {
	ours := sampleEvent()
	headers, err := cloudevents.HTTP.Encode(ours)
	require.NoError(t, err)
	h := make(http.Header)
	for name, value := range headers {
		h.Set(name, value)
	}
	theirs, err := binding.ToEvent(t.Context(), cehttp.NewMessage(h, io.NopCloser(bytes.NewReader(ours.Message.Payload))))
	require.NoError(t, err)
	requireSame(t, ours, theirs)
	require.Equal(t, ours.Message.Payload, theirs.Data())
}

func TestWeReadTheCloudEventsSDKsHTTPRequest(t *testing.T) {
	theirs := event.New()
	theirs.SetID("o-1")
	theirs.SetType("orders.placed")
	theirs.SetSource("/shop")
	theirs.SetTime(time.Date(2026, 3, 4, 5, 6, 7, 8, time.UTC))
	theirs.SetSubject("basket/4")
	theirs.SetDataSchema("https://example.org/schema")
	theirs.SetExtension("partitionkey", "customer-7")
	theirs.SetExtension("sequence", "17")
	require.NoError(t, theirs.SetData("application/json", []byte(`{}`)))
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://example.org", nil)
	require.NoError(t, err)
	require.NoError(t, cehttp.WriteRequest(binding.WithForceBinary(t.Context()), binding.ToMessage(&theirs), request))

	ours, err := cloudevents.HTTP.Decode(single(request.Header))
	require.NoError(t, err)
	requireSame(t, ours, &theirs)
	require.Equal(t, pubsub.Header{"content-type": "application/json"}, ours.Message.Header, "all else is an attribute")

	require.NoError(t, cehttp.WriteRequest(binding.WithForceStructured(t.Context()), binding.ToMessage(&theirs), request))
	_, err = cloudevents.HTTP.Decode(single(request.Header))
	require.ErrorIs(t, err, cloudevents.ErrStructured)
}

// single yields headers with their values.
func single(h http.Header) func(yield func(string, string) bool) {
	return func(yield func(string, string) bool) {
		for name, values := range h {
			for _, value := range values {
				if !yield(name, value) {
					return
				}
			}
		}
	}
}
