package natspubsub

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/backstay-go/backstay/pubsub"
)

// laneRecord is what a group remembers of a lane: who has it, and what is settled. It is the one message of its subject,
// and only the version that the writer has read is ever replaced, so that a member which does not have the lane any
// more can write nothing.
type laneRecord struct {
	// Stream is when the topic's stream was made: in another one all sequences mean something else.
	Stream time.Time `json:"stream"`
	// Owner is the member that has the lane, Lease that of its deliveries in nanoseconds, Epoch how often the lane was
	// taken.
	Owner string        `json:"owner,omitempty"`
	Lease time.Duration `json:"lease,omitempty"`
	Epoch uint64        `json:"epoch"`
	// Floor is a sequence of the stream: all messages of the lane up to it are settled. While nothing is, the group
	// begins with messages from Start on.
	Floor uint64     `json:"floor"`
	Start *time.Time `json:"start,omitempty"`
	// Acked are ranges of sequences above Floor: all messages of the lane in them are settled.
	Acked []span `json:"acked,omitempty"`
	// Tries are the deliveries of messages that were given back: pairs of sequence and number.
	Tries []span `json:"tries,omitempty"`
	// Deaths is how many members in a row have died without settling what follows DeathFloor.
	Deaths     int    `json:"deaths,omitempty"`
	DeathFloor uint64 `json:"death_floor,omitempty"`
}

// span is a pair of numbers, the ends of a range where it is one.
type span [2]uint64

// errConflict says that a record is not the one that was to be replaced.
var errConflict = errors.New("natspubsub: the lane's record has changed")

const (
	// codeWrongSequence is the server's error when a subject has another last message than expected.
	codeWrongSequence = 10071
	// temporaryAge is how long the records of temporary groups outlive their members.
	temporaryAge = 24 * time.Hour
)

// laneStore reads and writes the records of one group.
type laneStore struct {
	driver *Driver
	name   string // of the stream of records
	prefix string // of the group's subjects
	stream jetstream.Stream
}

// laneStreamName is that of the records of a topic's groups. No topic's stream has such a name, since topics do not begin
// with a dot.
func (c Config) laneStreamName(topic string, temporary bool) (stream, subject string) {
	sum := sha256.Sum256([]byte(topic))
	hash := hex.EncodeToString(sum[:16])
	kind := "lanes"
	if temporary {
		kind = "views"
	}
	return c.Prefix + "~~" + kind + "~" + hash, c.Prefix + ".~" + kind + "." + hash
}

// findLanes is the store of a group, or nil if no group of the topic is ordered.
func (d *Driver) findLanes(ctx context.Context, s pubsub.Subscription) (*laneStore, error) {
	name, subject := d.cfg.laneStreamName(s.Topic, s.Temporary)
	stream, err := d.js.Stream(ctx, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, nil
	}
	return &laneStore{driver: d, name: name, prefix: subject + "." + s.Group, stream: stream}, err
}

// ensureLanes makes the stream of the records if need be.
func (d *Driver) ensureLanes(ctx context.Context, s pubsub.Subscription, t *topic) (*laneStore, error) {
	store, err := d.findLanes(ctx, s)
	if err != nil || store != nil {
		return store, err
	}
	name, subject := d.cfg.laneStreamName(s.Topic, s.Temporary)
	want := jetstream.StreamConfig{
		Name:              name,
		Description:       "backstay ordered groups of topic " + s.Topic,
		Subjects:          []string{subject + ".*.lane.*"},
		Storage:           d.cfg.storage(),
		Replicas:          max(t.replicas, 1),
		MaxMsgsPerSubject: 1,
		Discard:           jetstream.DiscardOld,
	}
	if s.Temporary {
		want.MaxAge = temporaryAge
	}
	if _, err = d.createStream(ctx, want); err != nil && !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		return nil, err
	}
	return d.findLanes(ctx, s)
}

func (s *laneStore) subject(lane int) string { return s.prefix + ".lane." + strconv.Itoa(lane) }

// gossip is the subject on which the members tell each other of themselves; it is not kept.
func (s *laneStore) gossip() string { return s.prefix + ".gossip" }

// get returns the record of a lane and its revision, zero if there is none. The stream's leader answers. Should it be one
// that others have replaced, it is of no consequence: what is old cannot be replaced.
func (s *laneStore) get(ctx context.Context, lane int) (rec laneRecord, revision uint64, err error) {
	m, err := s.stream.GetLastMsgForSubject(ctx, s.subject(lane))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return rec, 0, nil
	}
	if err != nil {
		return rec, 0, err
	}
	if err := json.Unmarshal(m.Data, &rec); err != nil {
		return rec, 0, fmt.Errorf("the record in %s is broken: %w", s.subject(lane), err)
	}
	return rec, m.Sequence, nil
}

// put replaces the record of that revision. Its error is errConflict when there is another one; after any other error the
// record may have been replaced.
func (s *laneStore) put(ctx context.Context, lane int, rec laneRecord, revision uint64) (uint64, error) {
	body, err := json.Marshal(rec)
	if err != nil {
		return 0, err
	}
	m := nats.NewMsg(s.subject(lane))
	m.Data = body
	m.Header.Set(nats.ExpectedStreamHdr, s.name)
	m.Header.Set(nats.ExpectedLastSubjSeqHdr, strconv.FormatUint(revision, 10))
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	answer, err := s.driver.conn.RequestMsgWithContext(ctx, m)
	if err != nil {
		return 0, err
	}
	var ack struct {
		Error    *jetstream.APIError `json:"error"`
		Sequence uint64              `json:"seq"`
	}
	switch err := json.Unmarshal(answer.Data, &ack); {
	case err != nil:
		return 0, err
	case ack.Error != nil && ack.Error.ErrorCode == codeWrongSequence:
		return 0, errConflict
	case ack.Error != nil:
		return 0, ack.Error
	}
	return ack.Sequence, nil
}

// remove forgets the group.
func (s *laneStore) remove(ctx context.Context) error {
	return s.stream.Purge(ctx, jetstream.WithPurgeSubject(s.prefix+".lane.*"))
}

// exists reports whether the stream of records is there.
func (s *laneStore) exists(ctx context.Context) error {
	_, err := s.driver.js.Stream(ctx, s.name)
	return err
}
