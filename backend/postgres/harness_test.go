package postgres_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/postgres/internal/pgtest"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/pubsub"
)

const keys = 100

// perKey is how many messages of each key a fault case has.
func perKey() int {
	if os.Getenv("BACKSTAY_LONG") == "1" {
		return 100
	}
	return 20
}

// perKeyIn is how many a case has that runs for both stores: fewer in the short form of the portable one, which has each
// settlement take several round trips.
func perKeyIn(kind string) int {
	if n := perKey(); kind == "pgx" || n > 20 {
		return n
	}
	return 12
}

// quick is a relay's configuration for tests: leases that a loaded machine keeps, and small batches, so that kills find one.
func quick(name string) outbox.RelayConfig {
	return outbox.RelayConfig{Name: name, Batch: 20, Lease: 2 * time.Second, PollMax: 20 * time.Millisecond, BackoffInitial: time.Millisecond}
}

func numbered(key, n int) pubsub.Message {
	return pubsub.Message{ID: fmt.Sprintf("%d/%d", key, n), Topic: "t", Key: strconv.Itoa(key), Payload: strconv.AppendInt(nil, int64(n), 10)}
}

// write stores the messages first to last of every key, a transaction for each number.
func write(t testing.TB, ob *outbox.Outbox[pgx.Tx], first, last int) {
	t.Helper()
	for n := first; n <= last; n++ {
		batch := make([]pubsub.Message, keys)
		for k := range batch {
			batch[k] = numbered(k, n)
		}
		store(t, ob, batch...)
	}
}

// check fails the test unless all messages up to last of every key are among msgs, first occurrences in order of their key, and
// no more than repeated of them twice.
func check(t testing.TB, msgs []pubsub.Message, last, repeated int) {
	t.Helper()
	require.Equal(t, keys*last, distinct(msgs), "messages published")
	require.LessOrEqual(t, len(msgs)-keys*last, repeated, "repetitions")
	inOrder(t, msgs)
}

func inOrder(t testing.TB, msgs []pubsub.Message) {
	t.Helper()
	seen := map[string]int{}
	for _, m := range msgs {
		n, err := strconv.Atoi(string(m.Payload))
		require.NoError(t, err)
		require.Equal(t, m.Key+"/"+strconv.Itoa(n), m.ID, "the same ID always")
		require.LessOrEqual(t, n, seen[m.Key]+1, "key %s: %d follows %d", m.Key, n, seen[m.Key])
		seen[m.Key] = max(n, seen[m.Key])
	}
}

func distinct(msgs []pubsub.Message) int {
	ids := map[string]bool{}
	for _, m := range msgs {
		ids[m.ID] = true
	}
	return len(ids)
}

// run runs a relay until the returned function or the end of the test stops it.
func run(t testing.TB, q outbox.Queue, p pubsub.Publisher, cfg outbox.RelayConfig, opts ...outbox.RelayOption) (*outbox.Relay, func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := outbox.NewRelay(q, p, cfg, opts...)
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return r, stop
}

// three runs three relays.
func three(t testing.TB, q outbox.Queue, p pubsub.Publisher, opts ...outbox.RelayOption) []*outbox.Relay {
	t.Helper()
	relays := make([]*outbox.Relay, 3)
	for i := range relays {
		relays[i], _ = run(t, q, p, quick(fmt.Sprint("relay", i)), opts...)
	}
	return relays
}

// wait waits until done, for as long as calls of done go on seeing progress within the patience.
func wait(t testing.TB, what string, progress func() int, done func() bool) {
	t.Helper()
	last, since := progress(), time.Now()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for ; !done(); <-ticker.C {
		if now := progress(); now != last {
			last, since = now, time.Now()
		}
		if time.Since(since) > pgtest.Patience {
			t.Fatalf("%s: no progress within %v", what, pgtest.Patience)
		}
	}
}

// within waits until done is closed.
func within(t testing.TB, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(pgtest.Patience):
		t.Fatalf("not within %v", pgtest.Patience)
	}
}

// empty waits until nothing is pending.
func empty(t testing.TB, q outbox.Queue) {
	t.Helper()
	pending := 0
	look := func() int {
		if b, err := q.Backlog(t.Context()); err == nil {
			pending = int(b.Pending)
		} else {
			pending = -1
		}
		return pending
	}
	wait(t, "drain", look, func() bool { return pending == 0 })
}

// file is a broker that outlives the processes of a test: it appends what it takes to a file, a call in two parts, so that a kill often
// falls between them.
type file struct {
	*os.File
	after func() // between acceptance and answer
}

func openFile(t testing.TB, dir string) file {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, "published"), os.O_APPEND|os.O_CREATE|os.O_RDWR, 0o600)
	require.NoError(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return file{File: f, after: func() {}}
}

func (p file) Publish(_ context.Context, msgs ...pubsub.Message) error {
	half := len(msgs) / 2
	err := errors.Join(p.put(msgs[:half]), p.put(msgs[half:]))
	p.after()
	return err
}

func (p file) put(msgs []pubsub.Message) error {
	var text bytes.Buffer
	for _, m := range msgs {
		line, err := json.Marshal(m)
		if err != nil {
			return err
		}
		fmt.Fprintf(&text, "\n%s\n", line)
	}
	_, err := p.Write(text.Bytes())
	return err
}

func (p file) messages(t testing.TB) []pubsub.Message {
	t.Helper()
	text, err := os.ReadFile(p.Name())
	require.NoError(t, err)
	var msgs []pubsub.Message
	for line := range strings.Lines(string(text)) {
		var m pubsub.Message
		if json.Unmarshal([]byte(line), &m) == nil { // a killed process may leave half a line
			msgs = append(msgs, m)
		}
	}
	return msgs
}

func (p file) size(t testing.TB) int {
	t.Helper()
	info, err := p.Stat()
	require.NoError(t, err)
	return int(info.Size())
}
