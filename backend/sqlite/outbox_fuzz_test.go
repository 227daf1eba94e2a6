package sqlite_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/pubsub"
)

// Whatever a message carries, it comes out of the table as it went in, or Publish refuses it.
func FuzzOutboxMessageComesBack(f *testing.F) {
	f.Add("id", "key", "name", "value", []byte("payload"), int64(0))
	f.Add("", "", "", "", []byte(nil), int64(-1))
	f.Add("'; --", "\x00", "a", "\"{}\\", []byte{0, 0xff, 0xfe}, int64(1)<<62)
	f.Add("✓", "ключ", "b", "värde\n\r", []byte("\x00\x00"), int64(1))
	s, _ := newOutbox(f)
	ob := outbox.New(s, outbox.Config{})
	l, err := s.Lease(f.Context(), "fuzz", 24*time.Hour)
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, id, key, name, value string, payload []byte, sent int64) {
		m := pubsub.Message{ID: id, Topic: "t", Key: key, Payload: payload, Time: time.Unix(0, sent)}
		if name != "" {
			m.Header = pubsub.Header{name: value}
		}
		if m.Validate() != nil {
			return
		}
		store(t, ob, m)
		records, err := s.Fetch(t.Context(), l, 2)
		require.NoError(t, err)
		require.Len(t, records, 1)
		got := records[0].Message
		if id != "" {
			require.Equal(t, id, got.ID)
		}
		require.Equal(t, key, got.Key)
		require.Equal(t, m.Header, got.Header)
		require.True(t, bytes.Equal(payload, got.Payload))
		require.True(t, m.Time.Equal(got.Time))
		require.NoError(t, s.Settle(t.Context(), l, records, nil))
	})
}
