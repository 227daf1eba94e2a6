package natspubsub

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/pubsub"
)

// carried is m as it comes out of NATS's own encoding.
func carried(t *testing.T, sent *nats.Msg) *nats.Msg {
	t.Helper()
	raw := []byte("NATS/1.0\r\n")
	for name, values := range sent.Header {
		for _, v := range values {
			raw = append(raw, name+": "+v+"\r\n"...)
		}
	}
	require.GreaterOrEqual(t, wireSize(sent), len(raw)+2+len(sent.Data))
	h, err := nats.DecodeHeadersMsg(append(raw, "\r\n"...))
	require.NoError(t, err)
	return delivered(h, sent.Data)
}

func delivered(h nats.Header, data []byte) *nats.Msg {
	return &nats.Msg{Header: h, Data: data, Reply: "$JS.ACK.s.c.3.7.9.1700000000000000000.0", Sub: &nats.Subscription{}}
}

func FuzzWireKeepsMessages(f *testing.F) {
	f.Add("id", "key", "name", "value", "other", "line\r\nInjected: x", []byte("payload"))
	f.Add(" i\nd% ", "ключ \"x\"", "Nats-Rollup", "all", "Backstay-Headers", " trimmed\t", []byte{})
	f.Add("%41", "%", "nats-ttl", "1s", "Status", "408", []byte{0, 255})
	f.Fuzz(func(t *testing.T, id, key, name1, value1, name2, value2 string, payload []byte) {
		for _, s := range []string{id, key, value1, value2} {
			if !utf8.ValidString(s) {
				t.Skip("package pubsub refuses it")
			}
		}
		m := pubsub.Message{ID: "i" + id, Topic: "t", Key: key, Payload: payload, Attempt: 3,
			Time: time.Unix(1, 2).UTC(), Header: pubsub.Header{}}
		for name, value := range map[string]string{name1: value1, name2: value2} {
			if isHTTPToken(name) {
				m.Header[name] = value
			}
		}
		nm := Config{}.withDefaults().encode(&m)
		for name := range nm.Header {
			if strings.HasPrefix(strings.ToLower(name), "nats-") && name != headerMsgID {
				t.Fatalf("the server would obey header %q", name)
			}
		}
		got, _, err := decode("t", carried(t, nm))
		require.NoError(t, err)
		require.Equal(t, m, got)
	})
}

// isHTTPToken is what package pubsub accepts as a header's name.
func isHTTPToken(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || c == ':' || c == '"' || c == '/' || c == '(' || c == ')' || c == ',' || c >= ';' && c <= '@' || c >= '[' && c <= ']' || c == '{' || c == '}' {
			return false
		}
	}
	return s != "" && (len(s) < 3 || s[:3] != "ce-" && s[:3] != "ce_")
}

// A peer's consumer died of a two-valued header.
func TestGuaranteeForeignMessagesAreDelivered(t *testing.T) {
	m, epoch, err := decode("t", delivered(nats.Header{"a": {"1", "2"}, "b": {""}, "ce-time": {"never"}, "ce-id": {""}}, []byte("x")))
	require.NoError(t, err)
	require.Equal(t, pubsub.Message{ID: "s:7", Topic: "t", Header: pubsub.Header{"a": "1, 2", "b": ""}, Payload: []byte("x"),
		Time: time.Unix(1_700_000_000, 0), Attempt: 3}, m)
	require.Equal(t, uint64(9), epoch)
	m, _, err = decode("t", delivered(nats.Header{"Nats-Msg-Id": {"%zz"}, "Backstay-Headers": {"%zz"}}, nil))
	require.NoError(t, err)
	require.Equal(t, "%zz", m.ID)
	require.Equal(t, pubsub.Header{"Backstay-Headers": "%zz"}, m.Header)
	_, _, err = decode("t", &nats.Msg{Reply: "x", Sub: &nats.Subscription{}})
	require.Error(t, err)
}

func TestLaneIsStable(t *testing.T) {
	c := Config{}.withDefaults()
	require.Equal(t, []int{7, 10, 10}, []int{c.lane("customer-1", "x"), c.lane("", "customer-2"), c.lane("customer-2", "")},
		"a change of the hash moves keys to other lanes while messages are under way")
	used := map[int]bool{}
	for i := range 1000 {
		used[c.lane(time.Duration(i).String(), "")] = true
	}
	require.Len(t, used, 16)
}

func TestAnswersOfTheServer(t *testing.T) {
	for _, tc := range []struct {
		status, description string
		suspect, refused    bool
	}{
		{"408", "Request Timeout", false, false},
		{"404", "No Messages", false, false},
		{"409", "Leadership Change", true, false},
		{"409", "Server Shutdown", true, false},
		{"409", "Consumer Deleted", true, false},
		{"503", "", true, false},
		{"400", "Bad Request", false, true},
		{"409", "Exceeded MaxRequestBatch of 1", false, true},
		{"409", "Consumer is push based", false, true},
	} {
		p := pull{left: 5}
		p.answer(tc.status, tc.description)
		require.Equal(t, []any{0, tc.suspect, tc.refused}, []any{p.left, p.suspect, p.refusal != nil}, tc)
	}
	p := pull{left: 5}
	p.answer("100", "Idle Heartbeat")
	require.Equal(t, 5, p.left)
	for i := range 100 {
		require.LessOrEqual(t, backoff(i+1), backoffMax)
		require.Positive(t, backoff(i+1))
	}
}
