package natspubsub

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
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

// streamName is unlike for unlike topics: topics and prefixes have no '~', and prefixes no dot.
func (c Config) streamName(topic string) string {
	return c.Prefix + "~" + strings.ReplaceAll(topic, ".", "~")
}

// subject is where the messages of a lane are kept. Subjects of different topics never overlap, not even those of
// "a" and "a.0": the number of tokens differs.
func (c Config) subject(topic string, lane int) string {
	return c.Prefix + "." + topic + "." + strconv.Itoa(lane)
}

// lane is the FNV-1a hash of the key, or of the ID where there is no key, modulo the number of lanes.
func (c Config) lane(key, id string) int {
	if key == "" {
		key = id
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(key)) // never fails
	return int(h.Sum32() % uint32(c.Lanes))
}

// checkTopic refuses what cannot be part of a subject and of a stream's name.
func (c Config) checkTopic(topic string) error {
	for token := range strings.SplitSeq(topic, ".") {
		if !isToken(token) {
			return fmt.Errorf("natspubsub: topic %q: it must be letters, digits, '_' or '-', in parts separated by single dots", topic)
		}
	}
	if len(c.streamName(topic)) > maxName {
		return fmt.Errorf("natspubsub: topic %q: with the prefix %q it has more than %d bytes", topic, c.Prefix, maxName-1)
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

// ensureStream makes the stream of topic, or checks the one that exists, once per driver.
func (d *Driver) ensureStream(ctx context.Context, topic string) error {
	if _, known := d.topics.Load(topic); known {
		return nil
	}
	if err := d.cfg.checkTopic(topic); err != nil {
		return err
	}
	want := d.cfg.stream(topic)
	s, err := d.js.Stream(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		s, err = d.createStream(ctx, want)
	}
	if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // made by another service meanwhile
		s, err = d.js.Stream(ctx, want.Name)
	}
	if err != nil {
		return fmt.Errorf("natspubsub %q: stream %s: %w", d.cfg.Name, want.Name, err)
	}
	if err := d.cfg.checkStream(s.CachedInfo().Config, topic); err != nil {
		return err
	}
	d.topics.Store(topic, struct{}{})
	return nil
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
// every server version, and makes the server refuse a message for a lane that does not exist.
func (c Config) stream(topic string) jetstream.StreamConfig {
	subjects := make([]string, c.Lanes)
	for lane := range subjects {
		subjects[lane] = c.subject(topic, lane)
	}
	return jetstream.StreamConfig{
		Name:        c.streamName(topic),
		Description: "backstay topic " + topic,
		Subjects:    subjects,
		Storage:     c.storage(),
		Replicas:    max(c.Replicas, 1),
		MaxAge:      c.MaxAge,
		MaxBytes:    unlimited(c.MaxBytes),
		Discard:     jetstream.DiscardNew, // a full stream refuses messages; it does not lose old ones
	}
}

func unlimited(limit int64) int64 {
	if limit == 0 {
		return -1
	}
	return limit
}

// checkStream compares what Config declares with what the server has.
func (c Config) checkStream(found jetstream.StreamConfig, topic string) error {
	want := c.stream(topic)
	differs := func(field string, want, found any) error {
		return fmt.Errorf("%w: stream %s: Config.%s is %v, found %v", ErrMismatch, c.streamName(topic), field, want, found)
	}
	switch {
	case len(found.Subjects) != c.Lanes:
		return differs("Lanes", c.Lanes, len(found.Subjects))
	case !sameSet(found.Subjects, want.Subjects):
		return differs("Prefix", c.Prefix, "subjects "+strings.Join(found.Subjects, " "))
	case found.Storage != want.Storage:
		return differs("Storage", want.Storage, found.Storage)
	case want.Storage == jetstream.FileStorage && found.PersistMode == jetstream.AsyncPersistMode:
		return differs("Storage", want.Storage, "persist mode async, which acknowledges before writing")
	case found.Retention != jetstream.LimitsPolicy:
		return differs("Storage", jetstream.LimitsPolicy, found.Retention)
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
