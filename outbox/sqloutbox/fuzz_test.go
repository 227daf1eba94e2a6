package sqloutbox_test

import (
	"maps"
	"testing"

	"github.com/backstay-go/backstay/outbox/sqloutbox"
	"github.com/backstay-go/backstay/pubsub"
)

// Whatever stands in the column, decoding it neither panics nor makes a header that would not come back the same.
func FuzzDecodeHeader(f *testing.F) {
	for _, text := range []string{"", "{}", "null", "[]", `{"a":"b"}`, `{"a":1}`, `{"a":"b"`, `{"a":"\u0000\ud800"}`, `{"a":"1","a":"2"}`, "{\"\xff\":\"\"}", "\x00", `"text"`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		h, err := sqloutbox.DecodeHeader(text)
		if err != nil {
			return
		}
		again, err := sqloutbox.EncodeHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := sqloutbox.DecodeHeader(again); err != nil || !maps.Equal(back, h) {
			t.Fatalf("%q became %q (%v)", h, back, err)
		}
	})
}

// Every header that a message may have comes back as it was.
func FuzzHeaderComesBack(f *testing.F) {
	f.Add("trace", "00-abc", "empty", "")
	f.Add("a", "<&>\u2028\x00\"\\", "b", "värde")
	f.Fuzz(func(t *testing.T, name, value, other, more string) {
		m := pubsub.Message{Topic: "t", Header: pubsub.Header{name: value, other: more}}
		if m.Validate() != nil {
			return
		}
		text, err := sqloutbox.EncodeHeader(m.Header)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := sqloutbox.DecodeHeader(text); err != nil || !maps.Equal(back, m.Header) {
			t.Fatalf("%q became %q (%v)", m.Header, back, err)
		}
	})
}
