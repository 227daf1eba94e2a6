package natspubsub

import (
	"encoding/json"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/nats/natsembed"
	"github.com/backstay-go/backstay/pubsub"
)

// laneModel drives a lane as a receiver would, and knows what must come of it.
type laneModel struct {
	t       *testing.T
	rnd     *rand.Rand
	lane    *lane
	stream  []uint64 // sequences of the lane's messages
	read    int      // how many have arrived
	acked   map[uint64]bool
	held    []*laneToken
	lastSeq uint64 // delivered last in this epoch
	epoch   uint64
}

func (m *laneModel) arrive() {
	for m.read < len(m.stream) && m.stream[m.read] <= m.lane.last {
		m.read++
	}
	if m.read < len(m.stream) {
		m.lane.arrive(&nats.Msg{}, origin{sequence: m.stream[m.read]})
		m.read++
	}
}

func (m *laneModel) deliver(depth int) {
	e := m.lane.next(depth)
	if e == nil {
		return
	}
	require.False(m.t, m.acked[e.from.sequence], "%d was settled and comes again", e.from.sequence)
	if m.lane.epoch == m.epoch {
		require.Greater(m.t, e.from.sequence, m.lastSeq, "out of order")
	}
	for _, seq := range m.stream { // nothing that is not settled is left out
		if seq >= e.from.sequence {
			break
		}
		held := false
		for _, t := range m.held {
			held = held || t.entry.token == t && t.entry.from.sequence == seq
		}
		require.True(m.t, held || m.acked[seq], "%d is delivered before %d", e.from.sequence, seq)
	}
	m.lastSeq, m.epoch = e.from.sequence, m.lane.epoch
	t := new(laneToken)
	m.lane.hold(e, t, time.Hour)
	m.held = append(m.held, t)
	require.LessOrEqual(m.t, m.lane.held, depth)
}

func (m *laneModel) ack() {
	if len(m.held) == 0 {
		return
	}
	i := m.rnd.IntN(len(m.held))
	t := m.held[i]
	m.held = append(m.held[:i], m.held[i+1:]...)
	if t.entry.token == t {
		m.acked[t.entry.from.sequence] = true
		m.lane.ack(t.entry)
	}
}

// handOver gives the lane to the next owner by way of its record.
func (m *laneModel) handOver(depth int) {
	m.lane.anew()
	text, err := json.Marshal(m.lane.state(true))
	require.NoError(m.t, err)
	m.lane.drop()
	m.read, m.held = 0, nil
	var rec laneRecord
	require.NoError(m.t, json.Unmarshal(text, &rec))
	m.lane.take(rec, 1, 0, depth, false)
}

// Whatever is acknowledged, given back and handed over, and in whatever order: what is not settled comes in order and in
// a new epoch, and what is settled never again.
func TestGuaranteeLaneHandoverKeepsWhatIsSettled(t *testing.T) {
	t.Parallel()
	const depth = 5
	for seed := range uint64(60) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		m := &laneModel{t: t, rnd: rnd, lane: &lane{}, acked: make(map[uint64]bool)}
		for seq := uint64(0); len(m.stream) < 60; {
			seq += 1 + rnd.Uint64N(4)
			m.stream = append(m.stream, seq)
		}
		m.lane.take(laneRecord{}, 1, 0, depth, seed%3 == 0)
		for steps := 0; len(m.acked) < len(m.stream); steps++ {
			require.Less(t, steps, 100_000, "%d of %d messages were delivered", len(m.acked), len(m.stream))
			switch n := rnd.IntN(40); {
			case n < 15:
				m.arrive()
			case n < 27:
				m.deliver(depth)
			case n < 37:
				m.ack()
			case n < 38:
				m.lane.anew()
			default:
				m.handOver(depth)
			}
		}
		for range m.stream { // what was settled before the lane came here
			m.arrive()
		}
		require.Equal(t, m.stream[len(m.stream)-1], m.lane.floor)
	}
}

// A message that has killed everybody who had its lane is known by its attempts; those behind it are delivered one at a
// time until then.
func TestGuaranteeLaneCountsDeaths(t *testing.T) {
	l := &lane{}
	l.take(laneRecord{Floor: 10, DeathFloor: 10, Deaths: 7}, 1, 0, 64, true)
	for seq := uint64(11); seq < 14; seq++ {
		l.arrive(&nats.Msg{}, origin{sequence: seq})
	}
	tok := new(laneToken)
	e := l.next(64)
	l.hold(e, tok, time.Hour)
	require.Equal(t, 8, e.tries)
	require.Nil(t, l.next(64))
	require.Equal(t, 7, l.state(false).Deaths)
	l.ack(e)
	require.Zero(t, l.state(false).Deaths)
	e = l.next(64)
	l.hold(e, new(laneToken), time.Hour)
	require.Equal(t, 2, e.tries)
}

// A lane's lease is written often enough, and others wait long enough, for every delivery to have its own lease.
func TestLaneLeasesCoverDeliveries(t *testing.T) {
	const lease = 20 * time.Second
	require.Less(t, lease/4, freshFor(lease))
	require.LessOrEqual(t, freshFor(lease)+lease, leaseFor(lease))
}

// testDriver is a driver on a server of its own.
func testDriver(t *testing.T) *Driver {
	t.Helper()
	srv, err := natsembed.Start(natsembed.Config{Dir: t.TempDir()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, srv.Close()) })
	conn, err := srv.Connect()
	require.NoError(t, err)
	t.Cleanup(conn.Close)
	d, err := New(t.Context(), conn, Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return d
}

// A Receive that waits since a lane is full goes on when something of it is settled, and not when the server says something
// the next time, after seconds.
func TestSettledLaneGoesOnAtOnce(t *testing.T) {
	d := testDriver(t)
	for _, id := range []string{"1", "2", "3"} {
		require.Nil(t, d.Publish(t.Context(), []pubsub.Message{{ID: id, Topic: "t", Key: "k"}}))
	}
	opened, err := d.Open(t.Context(), pubsub.Subscription{Topic: "t", Group: "g", Start: "start", Ordered: true, Lease: time.Hour, LaneDepth: 1})
	require.NoError(t, err)
	r := opened.(*laneReceiver)
	defer func() { require.NoError(t, r.Close()) }()
	ds, err := r.Receive(t.Context(), 1)
	require.NoError(t, err)
	arrived := func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.lanes[ds[0].Lane].entries) == 3
	}
	require.Eventually(t, arrived, 2*time.Minute, time.Millisecond)
	for len(r.wake) > 0 {
		<-r.wake
	}
	require.NoError(t, r.Settle(t.Context(), []pubsub.Verdict{{Token: ds[0].Token, Kind: pubsub.Ack}}))
	require.Len(t, r.wake, 1)
}

// Only the version of a record that the writer has read is ever replaced.
func TestGuaranteeRecordsAreCompared(t *testing.T) {
	d := testDriver(t)
	s := pubsub.Subscription{Topic: "t", Group: "g", Lease: time.Minute}
	tp, err := d.ensureStream(t.Context(), "t")
	require.NoError(t, err)
	store, err := d.ensureLanes(t.Context(), s, tp)
	require.NoError(t, err)
	first, err := store.put(t.Context(), 3, laneRecord{Owner: "a"}, 0)
	require.NoError(t, err)
	_, err = store.put(t.Context(), 3, laneRecord{Owner: "b"}, 0)
	require.ErrorIs(t, err, errConflict)
	second, err := store.put(t.Context(), 3, laneRecord{Owner: "b"}, first)
	require.NoError(t, err)
	_, err = store.put(t.Context(), 3, laneRecord{Owner: "a", Floor: 9}, first)
	require.ErrorIs(t, err, errConflict)
	rec, revision, err := store.get(t.Context(), 3)
	require.NoError(t, err)
	require.Equal(t, second, revision)
	require.Equal(t, laneRecord{Owner: "b"}, rec)
}
