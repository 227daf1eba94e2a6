package natspubsub

import (
	"context"
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
	e := newEncoder(Config{}.withDefaults()) // used again and again, as the sender does
	topic := e.cfg.topic("t")
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
		nm := e.encode(&m, topic)
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
	m, from, err := decode("t", delivered(nats.Header{"a": {"1", "2"}, "b": {""}, "ce-time": {"never"}, "ce-id": {""}}, []byte("x")))
	require.NoError(t, err)
	require.Equal(t, pubsub.Message{ID: "s:7", Topic: "t", Header: pubsub.Header{"a": "1, 2", "b": ""}, Payload: []byte("x"),
		Time: time.Unix(1_700_000_000, 0), Attempt: 3}, m)
	require.Equal(t, uint64(9), from.number)
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
		p.answer(tc.status, tc.description, "")
		require.Equal(t, []any{0, tc.suspect, tc.refused}, []any{p.left, p.suspect, p.refusal != nil}, tc)
	}
	p := pull{left: 5}
	p.answer("100", "Idle Heartbeat", "")
	require.Equal(t, 5, p.left)
	for i := range 100 {
		require.LessOrEqual(t, backoff(i+1), backoffMax)
		require.Positive(t, backoff(i+1))
	}
}

func FuzzDecodeNeverPanics(f *testing.F) {
	f.Add("$JS.ACK.s.c.3.7.9.1700000000000000000.0", "NATS/1.0\r\na: 1\r\na: 2\r\n\r\n", []byte("x"))
	f.Add("$JS.ACK.d.a.s.c.3.7.9.1700000000000000000.0.random", "NATS/1.0\r\nBackstay-Headers: %zz\r\nce-id: %\r\n\r\n", []byte{})
	f.Add("$JS.ACK......", "NATS/1.0 503\r\n\r\n", []byte(nil))
	f.Add("$JS.ACK.s.c.-1.99999999999999999999.9.x.0", "NATS/1.0\r\nce-time: never\r\n\r\n", []byte(nil))
	f.Fuzz(func(t *testing.T, reply, header string, payload []byte) {
		h, err := nats.DecodeHeadersMsg([]byte(header))
		if err != nil {
			t.Skip("the client refuses it")
		}
		m, from, err := decode("t", &nats.Msg{Header: h, Reply: reply, Data: payload})
		if err != nil {
			return
		}
		require.NotEmpty(t, m.ID)
		require.GreaterOrEqual(t, from.deliveries, 0)
		for name := range m.Header {
			require.False(t, strings.HasPrefix(name, "ce-"))
		}
	})
}

func TestReplySubjects(t *testing.T) {
	want := origin{stream: "s", consumer: "c", deliveries: 3, sequence: 7, number: 9, stored: 5}
	for _, reply := range []string{"$JS.ACK.s.c.3.7.9.5.0", "$JS.ACK.d.a.s.c.3.7.9.5.0", "$JS.ACK.d.a.s.c.3.7.9.5.0.random"} {
		got, err := parseReply(reply)
		require.NoError(t, err)
		require.Equal(t, want, got, reply)
	}
	for _, reply := range []string{"", "$JS.ACK.", "$JS.ACK.s.c.3.7.9.5", "$JS.ACK.s.c.x.7.9.5.0", "_INBOX.s.c.3.7.9.5.0"} {
		_, err := parseReply(reply)
		require.Error(t, err, reply)
	}
}

func TestAnswersToPublish(t *testing.T) {
	status := nats.Header{"Status": {"503"}}
	for _, tc := range []struct {
		data      string
		header    nats.Header
		duplicate bool
		lost      bool
		text      string
	}{
		{data: `{"stream":"s", "seq":12}`},
		{data: `{"stream":"s","seq":12}`},
		{data: `{"stream":"s", "seq":12,"duplicate": true}`, duplicate: true},
		{data: `{"seq":12,"stream":"s"}`},
		{data: `{"error":{"code":503,"err_code":10077,"description":"maximum messages exceeded"},"stream":"s","seq":0}`, text: "maximum messages"},
		{data: ``, header: status, text: "no response from stream"},
		{data: `{"stream":"s", "seq":}`, lost: true},
		{data: `{"stream":"s", "seq":`, lost: true},
		{data: `{}`, lost: true},
		{data: ``, lost: true},
	} {
		duplicate, err := parseAck(&nats.Msg{Data: []byte(tc.data), Header: tc.header})
		require.Equal(t, tc.duplicate, duplicate, tc.data)
		require.Equal(t, tc.lost, err != nil && isLost(err), tc.data)
		if tc.text == "" && !tc.lost {
			require.NoError(t, err, tc.data)
		} else {
			require.ErrorContains(t, err, tc.text)
		}
	}
}

// What is fetched ahead follows what the owner takes.
func TestPace(t *testing.T) {
	var p pace
	require.Zero(t, p.taken(16, time.Millisecond), "too early to tell")
	require.Zero(t, p.taken(16, 30*time.Millisecond), "slow: others may have the rest")
	require.Equal(t, 128, p.taken(64, 40*time.Millisecond))
	require.Equal(t, aheadMost, p.taken(100_000, 50*time.Millisecond))
	require.Equal(t, aheadMost, p.taken(1, 51*time.Millisecond))
	require.Zero(t, p.taken(1, 90*time.Millisecond), "slow again")
}

// A call that is given up sends nothing more, and says of each message whether it was sent.
func TestAbandonedCall(t *testing.T) {
	c := newCall(t.Context(), time.Now().Add(time.Minute), make([]pubsub.Message, 4))
	c.refuse(0, errReply)
	for i := range 3 {
		require.True(t, c.next(i))
	}
	require.True(t, c.settle(1, nil, true))
	require.False(t, c.settle(1, errReply, false), "answered before")
	require.Equal(t, 1, c.abandon(context.Canceled), "message 2 was in flight")
	require.False(t, c.next(3))
	require.Equal(t, []bool{false, false, true, false}, []bool{isLost(c.errs[0]), c.errs[1] != nil, isLost(c.errs[2]), isLost(c.errs[3])})
	require.ErrorIs(t, c.errs[3], context.Canceled)
	require.Zero(t, c.abandon(pubsub.ErrClosed), "abandoned before")
	require.Equal(t, uint64(1), c.duplicates)
	<-c.done
}

func TestWireOfDelayedAndRedriven(t *testing.T) {
	e := newEncoder(Config{}.withDefaults())
	topic := e.cfg.topic("t")
	at := time.Now().Add(time.Hour)
	m := pubsub.Message{ID: "1", Topic: "t", DeliverAt: at, Header: pubsub.Header{pubsub.HeaderRedrive: "g/x"}}
	nm := e.encode(&m, topic)
	require.Equal(t, "1/g/x", nm.Header.Get("Nats-Msg-Id"))
	require.Equal(t, "1", nm.Header.Get("ce-id"))
	require.Equal(t, "@at "+at.UTC().Format(time.RFC3339Nano), nm.Header.Get("Nats-Schedule"))
	require.Equal(t, topic.subjects[e.cfg.lane("", "1")], nm.Header.Get("Nats-Schedule-Target"))
	require.Regexp(t, `^backstay\.t\.~at\.[0-9a-f]{32}$`, nm.Subject)
	nm = e.encode(&pubsub.Message{ID: "2", Topic: "t"}, topic)
	require.Equal(t, topic.subjects[e.cfg.lane("", "2")], nm.Subject)
	require.Len(t, nm.Header, 6, "nothing of the message before: %v", nm.Header)
}
