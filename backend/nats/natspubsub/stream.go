package natspubsub

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// ErrMismatch is wrapped by the error of a Publish or Open that finds a stream or consumer of other properties than the
// Config or Subscription asks for. The error names field, wanted and found. People decide which is right.
var ErrMismatch = errors.New("natspubsub: mismatch")

// maxName is the longest name of a stream or consumer, the limit of the server and of file names.
const maxName = 255

// maxTopic is the longest topic that package pubsub allows.
const maxTopic = 249

// maxPrefix leaves room in a subject, and in a stream's name for a hash.
const maxPrefix = 64

// streamName is unlike for unlike topics: topics and prefixes have no '~', prefixes no dot, and topics no two dots in a
// row. Of a topic that is too long a part is replaced by a hash.
func (c Config) streamName(topic string) string {
	name := c.Prefix + "~" + strings.ReplaceAll(topic, ".", "~")
	if len(name) <= maxName {
		return name
	}
	sum := sha256.Sum256([]byte(topic))
	hash := hex.EncodeToString(sum[:16])
	return name[:maxName-len("~~")-len(hash)] + "~~" + hash
}

// subject is where the messages of a lane are kept. Subjects of different topics never overlap, not even those of
// "a" and "a.0": the number of tokens differs.
func (c Config) subject(topic, lane string) string {
	return c.Prefix + "." + topic + "." + lane
}

// lane is the FNV-1a hash of the key, or of the ID where there is no key, modulo the number of lanes.
func (c Config) lane(key, id string) int {
	if key == "" {
		key = id
	}
	h := uint32(2166136261)
	for i := range len(key) {
		h = (h ^ uint32(key[i])) * 16777619
	}
	return int(h % uint32(c.Lanes))
}

// checkTopic refuses what cannot be part of a subject and of a stream's name.
func (c Config) checkTopic(topic string) error {
	for token := range strings.SplitSeq(topic, ".") {
		if !isToken(token) {
			return fmt.Errorf("natspubsub: topic %q: it must be letters, digits, '_' or '-', in parts separated by single dots", topic)
		}
	}
	if len(topic) > maxTopic {
		return fmt.Errorf("natspubsub: topic %q has %d bytes: it must have at most %d", topic, len(topic), maxTopic)
	}
	return nil
}

// isToken reports whether s can be one token of a subject, whatever the server.
func isToken(s string) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '_' && c != '-' {
			return false
		}
	}
	return s != ""
}

// topic is what is known of a topic whose stream exists.
type topic struct {
	name      string
	subjects  []string // by lane
	pending   string   // begins the subjects of messages that wait for their DeliverAt
	schedules bool     // the stream can keep such messages
	maxAge    time.Duration
	replicas  int
}

func (c Config) topic(name string) *topic {
	t := &topic{name: name, subjects: make([]string, c.Lanes), pending: c.Prefix + "." + name + ".~at."}
	for lane := range t.subjects {
		t.subjects[lane] = c.subject(name, strconv.Itoa(lane))
	}
	return t
}

// scheduleSubject is where a message waits: a subject of its own, since a subject keeps one schedule, and always the
// same one, so that a message that is sent again waits once.
func (t *topic) scheduleSubject(dedupID string) string {
	sum := sha256.Sum256([]byte(dedupID))
	return t.pending + hex.EncodeToString(sum[:16])
}

// ensureStream makes the stream of a topic, or checks the one that exists, once per driver.
func (d *Driver) ensureStream(ctx context.Context, name string) (*topic, error) {
	if t, known := d.topics.Load(name); known {
		return t.(*topic), nil
	}
	if err := d.cfg.checkTopic(name); err != nil {
		return nil, err
	}
	want := d.cfg.stream(name, d.schedules)
	s, err := d.js.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		s, err = d.createStream(ctx, want)
	}
	if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // made by another service meanwhile
		s, err = d.js.Stream(ctx, want.Name)
	}
	if err != nil {
		return nil, fmt.Errorf("natspubsub %q: stream %s: %w", d.cfg.Name, want.Name, err)
	}
	found := s.CachedInfo().Config
	if err := d.cfg.checkStream(found, name); err != nil {
		return nil, err
	}
	t := d.cfg.topic(name)
	t.schedules, t.maxAge, t.replicas = found.AllowMsgSchedules, found.MaxAge, found.Replicas
	d.topics.Store(name, t)
	d.noteDedup(found.Duplicates)
	return t, nil
}

// noteDedup keeps the shortest duplicate window of the streams that are known.
func (d *Driver) noteDedup(window time.Duration) {
	for {
		known := d.dedup.Load()
		if int64(window) >= known || d.dedup.CompareAndSwap(known, int64(window)) {
			return
		}
	}
}

// codeStoreFailed is the server's error when it could not make the files of a stream.
const codeStoreFailed = 10049

// createStream tries again when the server could not make the files: it removes the folder of an account with its last
// stream, and a stream that is made in that moment finds the folder gone.
func (d *Driver) createStream(ctx context.Context, want jetstream.StreamConfig) (s jetstream.Stream, err error) {
	for delay := 10 * time.Millisecond; delay <= 320*time.Millisecond; delay *= 2 {
		s, err = d.js.CreateStream(ctx, want)
		if failed, ok := errors.AsType[*jetstream.APIError](err); !ok || failed.ErrorCode != codeStoreFailed {
			return s, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(delay):
		}
	}
	return s, err
}

// stream is the stream of topic. Each lane has its own subject in the list, which thus keeps the number of lanes on
// every server version, and makes the server refuse a message for a lane that does not exist. A full stream refuses
// messages; it does not lose old ones. The server denies schedules to streams that say so, and where there is no bound
// it need not be said.
func (c Config) stream(topic string, schedules bool) jetstream.StreamConfig {
	t := c.topic(topic)
	sc := jetstream.StreamConfig{
		Name:        c.streamName(topic),
		Description: "backstay topic " + topic,
		Subjects:    t.subjects,
		Storage:     c.storage(),
		Replicas:    max(c.Replicas, 1),
		MaxAge:      c.MaxAge,
		MaxBytes:    unlimited(c.MaxBytes),
		Discard:     jetstream.DiscardNew,
	}
	if schedules {
		sc.Subjects = append(sc.Subjects, t.pending+"*")
		sc.Discard, sc.AllowMsgSchedules, sc.AllowRollup = jetstream.DiscardOld, true, true
	}
	return sc
}

func unlimited(limit int64) int64 {
	if limit == 0 {
		return -1
	}
	return limit
}

// checkStream compares what Config declares with what the server has.
func (c Config) checkStream(found jetstream.StreamConfig, topic string) error {
	want := c.stream(topic, found.AllowMsgSchedules)
	differs := func(field string, want, found any) error {
		return fmt.Errorf("%w: stream %s: Config.%s is %v, found %v", ErrMismatch, c.streamName(topic), field, want, found)
	}
	switch {
	case len(found.Subjects) != len(want.Subjects):
		return differs("Lanes", c.Lanes, len(found.Subjects)-len(want.Subjects)+c.Lanes)
	case !sameSet(found.Subjects, want.Subjects):
		return differs("Prefix", c.Prefix, "subjects "+strings.Join(found.Subjects, " "))
	case found.Storage != want.Storage:
		return differs("Storage", want.Storage, found.Storage)
	case want.Storage == jetstream.FileStorage && found.PersistMode == jetstream.AsyncPersistMode:
		return differs("Storage", want.Storage, "persist mode async, which acknowledges before writing")
	case found.Retention != jetstream.LimitsPolicy:
		return differs("Storage", jetstream.LimitsPolicy, found.Retention)
	case found.Discard != jetstream.DiscardNew && (found.MaxBytes > 0 || found.MaxMsgs > 0):
		return differs("MaxBytes", c.MaxBytes, "a bound at which the oldest messages are dropped")
	case found.MaxMsgsPerSubject > 0:
		return differs("Lanes", c.Lanes, fmt.Sprintf("a limit of %d messages per subject", found.MaxMsgsPerSubject))
	case c.Replicas != 0 && found.Replicas != c.Replicas:
		return differs("Replicas", c.Replicas, found.Replicas)
	case c.MaxAge != 0 && found.MaxAge != c.MaxAge:
		return differs("MaxAge", c.MaxAge, found.MaxAge)
	case c.MaxBytes != 0 && found.MaxBytes != c.MaxBytes:
		return differs("MaxBytes", c.MaxBytes, found.MaxBytes)
	}
	return nil
}

func sameSet(a, b []string) bool {
	in := make(map[string]bool, len(a))
	for _, s := range a {
		in[s] = true
	}
	for _, s := range b {
		if !in[s] {
			return false
		}
	}
	return len(in) == len(b)
}
