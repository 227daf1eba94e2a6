package sqlite_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/sqlite"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxtest"
	"github.com/backstay-go/backstay/outbox/sqloutbox"
	"github.com/backstay-go/backstay/pubsub"
)

// newOutbox is an empty store in a new file.
func newOutbox(t testing.TB) (*sqloutbox.Store, *sql.DB) {
	t.Helper()
	db := open(t, filepath.Join(t.TempDir(), "outbox.db"), sqlite.Config{})
	return migrated(t, db), db
}

func migrated(t testing.TB, db *sql.DB) *sqloutbox.Store {
	t.Helper()
	s, err := sqloutbox.New(db, sqloutbox.SQLite(), sqloutbox.Config{})
	require.NoError(t, err)
	require.NoError(t, s.Migrate(t.Context()))
	return s
}

func TestOutboxConformance(t *testing.T) {
	outboxtest.Run(t, outboxtest.Harness[*sql.Tx]{
		New: func(t *testing.T) outboxtest.Store[*sql.Tx] {
			s, _ := newOutbox(t)
			return s
		},
	})
}

func TestOutboxMigrateIsIdempotentAndConcurrent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "outbox.db")
	var wg sync.WaitGroup
	for range 8 {
		db := open(t, path, sqlite.Config{})
		wg.Go(func() {
			s, err := sqloutbox.New(db, sqloutbox.SQLite(), sqloutbox.Config{})
			for range 3 {
				if err == nil {
					err = s.Migrate(t.Context())
				}
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	require.NoError(t, migrated(t, open(t, path, sqlite.Config{})).Verify(t.Context()))
}

func TestOutboxVerifySaysWhatIsMissing(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "outbox.db"), sqlite.Config{})
	s, err := sqloutbox.New(db, sqloutbox.SQLite(), sqloutbox.Config{Prefix: "Mine_"})
	require.NoError(t, err)
	err = s.Verify(t.Context())
	for _, table := range []string{"outbox", "outbox_holds", "outbox_leases", "outbox_relays", "inbox"} {
		require.ErrorContains(t, err, "sqloutbox: table Mine_"+table+": ")
	}
	_, err = db.ExecContext(t.Context(), s.Schema())
	require.NoError(t, err, "the schema is plain SQL")
	require.NoError(t, s.Verify(t.Context()))
	_, err = db.ExecContext(t.Context(), "DELETE FROM Mine_outbox_schema WHERE version = 1")
	require.NoError(t, err)
	require.ErrorContains(t, s.Verify(t.Context()), "migration 1 (outbox and inbox) is missing from table Mine_outbox_schema")
	require.NoError(t, s.Migrate(t.Context()))
	require.NoError(t, s.Verify(t.Context()))
	_, err = db.ExecContext(t.Context(), "ALTER TABLE Mine_outbox DROP COLUMN header; DELETE FROM Mine_outbox_leases WHERE bucket = 7")
	require.NoError(t, err)
	require.ErrorContains(t, s.Verify(t.Context()), "Mine_outbox: ")
	_, err = db.ExecContext(t.Context(), "ALTER TABLE Mine_outbox ADD COLUMN header TEXT NOT NULL DEFAULT ''")
	require.NoError(t, err)
	require.ErrorContains(t, s.Verify(t.Context()), "63 rows instead of 64")
}

// Two outboxes in one database do not see each other.
func TestOutboxPrefixSeparates(t *testing.T) {
	s, db := newOutbox(t)
	other, err := sqloutbox.New(db, sqloutbox.SQLite(), sqloutbox.Config{Prefix: "other_"})
	require.NoError(t, err)
	require.NoError(t, other.Migrate(t.Context()))
	store(t, outbox.New(s, outbox.Config{}), pubsub.Message{Topic: "t"})
	for _, x := range []struct {
		store *sqloutbox.Store
		want  int64
	}{{s, 1}, {other, 0}} {
		b, err := x.store.Backlog(t.Context())
		require.NoError(t, err)
		require.Equal(t, x.want, b.Pending)
	}
}

func store(t testing.TB, ob *outbox.Outbox[*sql.Tx], msgs ...pubsub.Message) {
	t.Helper()
	require.NoError(t, ob.InTx(t.Context(), func(ctx context.Context, tx *sql.Tx) error { return ob.Publish(ctx, tx, msgs...) }))
}

// What the compiler enforces: Publish takes a transaction, and neither a database nor a connection will do.
func TestOutboxPlainConnectionDoesNotCompile(t *testing.T) {
	s, _ := newOutbox(t)
	tx := reflect.TypeOf(outbox.New(s, outbox.Config{}).Publish).In(1)
	require.Equal(t, reflect.TypeFor[*sql.Tx](), tx)
	require.False(t, reflect.TypeFor[*sql.DB]().AssignableTo(tx))
	require.False(t, reflect.TypeFor[*sql.Conn]().AssignableTo(tx))
}

// The business change and the message share one fate.
func TestOutboxCommitsWithTheBusinessChange(t *testing.T) {
	s, db := newOutbox(t)
	_, err := db.ExecContext(t.Context(), "CREATE TABLE orders (id TEXT PRIMARY KEY)")
	require.NoError(t, err)
	ob := outbox.New(s, outbox.Config{})
	place := func(id string) error {
		return ob.InTx(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
			if err := ob.Publish(ctx, tx, pubsub.Message{ID: id, Topic: "orders.placed", Key: id}); err != nil {
				return err
			}
			_, err := tx.ExecContext(ctx, "INSERT INTO orders (id) VALUES (?)", id)
			return err
		})
	}
	require.NoError(t, place("1"))
	require.Error(t, place("1"), "the second order of that ID")
	b, err := s.Backlog(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, b.Pending)
}

// filePublisher appends what it takes to a file: a broker that outlives every process of the test. It is slow, and takes a call in
// two parts, so that a kill often falls between them, or between the first and what the relay does before or after.
type filePublisher struct{ file *os.File }

func (p filePublisher) Publish(_ context.Context, msgs ...pubsub.Message) error {
	half := len(msgs) / 2
	err := p.write(msgs[:half])
	<-time.After(2 * time.Millisecond)
	return errors.Join(err, p.write(msgs[half:]))
}

func (p filePublisher) write(msgs []pubsub.Message) error {
	var text bytes.Buffer
	for _, m := range msgs {
		line, err := json.Marshal(m)
		if err != nil {
			return err
		}
		fmt.Fprintf(&text, "\n%s\n", line)
	}
	_, err := p.file.Write(text.Bytes())
	return err
}

func (p filePublisher) messages(t *testing.T) []pubsub.Message {
	t.Helper()
	text, err := os.ReadFile(p.file.Name())
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

func (p filePublisher) size(t *testing.T) int64 {
	t.Helper()
	info, err := p.file.Stat()
	require.NoError(t, err)
	return info.Size()
}

const relayChild = "BACKSTAY_TEST_RELAY_DIR"

var killConfig = outbox.RelayConfig{Batch: 20, Lease: 300 * time.Millisecond, PollMax: 10 * time.Millisecond}

func openFilePublisher(dir string) (filePublisher, error) {
	file, err := os.OpenFile(filepath.Join(dir, "published"), os.O_APPEND|os.O_CREATE|os.O_RDWR, 0o600)
	return filePublisher{file}, err
}

// TestOutboxRelayChild is the process that the next test kills.
func TestOutboxRelayChild(t *testing.T) {
	dir := os.Getenv(relayChild)
	if dir == "" {
		return
	}
	p, err := openFilePublisher(dir)
	require.NoError(t, err)
	s := migrated(t, open(t, filepath.Join(dir, "outbox.db"), sqlite.Config{}))
	_ = outbox.NewRelay(s, p, killConfig).Run(t.Context())
}

// Relays die by SIGKILL while messages are stored: nothing is lost, no more than a batch repeated for each death, always with the
// same ID, and the first occurrences of each key are in order.
func TestOutboxSurvivesKilledRelays(t *testing.T) {
	const kills, keys = 8, 30
	dir := t.TempDir()
	p, err := openFilePublisher(dir)
	require.NoError(t, err)
	defer func() { require.NoError(t, p.file.Close()) }()
	ob := outbox.New(migrated(t, open(t, filepath.Join(dir, "outbox.db"), sqlite.Config{})), outbox.Config{})

	stored := 0
	more := func() {
		stored++
		batch := make([]pubsub.Message, keys)
		for k := range batch {
			batch[k] = pubsub.Message{ID: fmt.Sprintf("%d/%d", k, stored), Topic: "t", Key: fmt.Sprint(k), Payload: fmt.Append(nil, stored)}
		}
		store(t, ob, batch...)
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for kill := range kills {
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestOutboxRelayChild$")
		child.Env = append(os.Environ(), relayChild+"="+dir)
		require.NoError(t, child.Start())
		for before := p.size(t); p.size(t) < before+5_000; <-tick.C {
			if stored < 8*(kill+1) {
				more()
			}
		}
		require.NoError(t, child.Process.Kill())
		require.Error(t, child.Wait())
	}

	s := migrated(t, open(t, filepath.Join(dir, "outbox.db"), sqlite.Config{}))
	ctx, cancel := context.WithCancel(t.Context())
	drained := make(chan error, 1)
	go func() { drained <- outbox.NewRelay(s, p, killConfig).Run(ctx) }()
	require.Eventually(t, func() bool {
		b, err := s.Backlog(t.Context())
		return err == nil && b.Pending == 0
	}, 5*time.Minute, 10*time.Millisecond)
	cancel()
	require.NoError(t, <-drained)

	msgs := p.messages(t)
	require.Equal(t, keys*stored, distinctIDs(msgs), "every committed message was published")
	require.LessOrEqual(t, len(msgs), keys*stored+kills*killConfig.Batch, "repetitions")
	t.Logf("%d messages, %d kills, %d repeated", keys*stored, kills, len(msgs)-keys*stored)
	last := map[string]int{}
	for _, m := range msgs {
		var n int
		require.NoError(t, json.Unmarshal(m.Payload, &n))
		require.LessOrEqual(t, n, last[m.Key]+1, "key %s", m.Key)
		last[m.Key] = max(n, last[m.Key])
	}
}

func distinctIDs(msgs []pubsub.Message) int {
	ids := map[string]bool{}
	for _, m := range msgs {
		ids[m.ID] = true
	}
	return len(ids)
}

type publisherFunc func(ctx context.Context, msgs ...pubsub.Message) error

func (f publisherFunc) Publish(ctx context.Context, msgs ...pubsub.Message) error {
	return f(ctx, msgs...)
}
