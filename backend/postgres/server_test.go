package postgres_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/postgres/internal/pgtest"
	"github.com/backstay-go/backstay/backend/postgres/pgoutbox"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxtest"
	"github.com/backstay-go/backstay/pubsub"
)

// writers store messages of their own keys until stopped, and remember what they were told of each.
type writers struct {
	committed, doubtful, refused sync.Map // IDs
	count                        atomic.Int64
	stop                         atomic.Bool
	group                        sync.WaitGroup
}

func startWriters(s outbox.Store[pgx.Tx], n int) *writers {
	w := &writers{}
	ob := outbox.New(s, outbox.Config{})
	for k := range n {
		w.group.Go(func() {
			for i := 1; !w.stop.Load(); i++ {
				m := pubsub.Message{ID: fmt.Sprintf("%d/%d", k, i), Topic: "t", Key: fmt.Sprint(k), Payload: fmt.Append(nil, i)}
				ctx, cancel := context.WithTimeout(context.Background(), pgtest.Patience)
				err := ob.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error { return ob.Publish(ctx, tx, m) })
				cancel()
				switch {
				case err == nil:
					w.committed.Store(m.ID, true)
					w.count.Add(1)
				case errors.Is(err, outbox.ErrInDoubt):
					w.doubtful.Store(m.ID, true)
				default:
					w.refused.Store(m.ID, true)
					<-time.After(5 * time.Millisecond) // a server that is away is not asked in a hot loop
				}
			}
		})
	}
	return w
}

func (w *writers) end() {
	w.stop.Store(true)
	w.group.Wait()
}

// check compares what was published with what the writers were told.
func (w *writers) check(t testing.TB, msgs []pubsub.Message) {
	t.Helper()
	published := map[string]bool{}
	highest := map[string]int{}
	for _, m := range msgs {
		var n int
		_, err := fmt.Sscan(string(m.Payload), &n)
		require.NoError(t, err)
		if !published[m.ID] {
			_, doubtful := w.doubtful.Load(m.ID)
			require.Greater(t, n, highest[m.Key], "order of key %s; its commit was in doubt: %t", m.Key, doubtful)
			highest[m.Key] = n
		}
		published[m.ID] = true
	}
	w.committed.Range(func(id, _ any) bool {
		require.True(t, published[id.(string)], "committed and not published: %s", id)
		return true
	})
	w.refused.Range(func(id, _ any) bool {
		require.False(t, published[id.(string)], "rolled back and published: %s", id)
		return true
	})
}

// The server crashes while writers commit and relays claim, and comes back: what was confirmed is published, what was said to be rolled
// back is not, and what is in doubt may be either.
func TestF15_ServerCrash(t *testing.T) {
	t.Parallel()
	server := pgtest.Start(t)
	s := newStore(t, pgtest.Pool(t, server.URL()), pgoutbox.Config{})
	var p outboxtest.Publisher
	three(t, s, &p)
	w := startWriters(s, 6)
	crashes, each := 3, int64(keys*perKey()/20)
	for range crashes {
		before := w.count.Load()
		pgtest.Eventually(t, "commits", func() bool { return w.count.Load() >= before+each })
		server.Kill(t)
		server.Restart(t)
	}
	before := w.count.Load()
	pgtest.Eventually(t, "commits after the last crash", func() bool { return w.count.Load() >= before+each })
	w.end()
	empty(t, s)
	w.check(t, p.Messages())
	doubtful := 0
	w.doubtful.Range(func(any, any) bool { doubtful++; return true })
	t.Logf("%d committed, %d in doubt", w.count.Load(), doubtful)
}

// The outbox is dumped with messages pending, one parked, and restored into a fresh cluster, whose transaction IDs begin anew: the
// relays go on there, numbers and epochs go on growing.
func TestF17_DumpAndRestore(t *testing.T) {
	t.Parallel()
	old, fresh := pgtest.Start(t), pgtest.Start(t)
	s := newStore(t, pgtest.Pool(t, old.URL()), pgoutbox.Config{})
	half := perKey() / 2
	write(t, outbox.New(s, outbox.Config{}), 1, half)
	l, err := s.Lease(t.Context(), "before the dump", time.Hour)
	require.NoError(t, err)
	require.NoError(t, s.Release(t.Context(), l))
	head, err := s.Fetch(t.Context(), l, 1)
	require.NoError(t, err)
	l, err = s.Lease(t.Context(), "before the dump", 2*time.Second)
	require.NoError(t, err)
	require.NoError(t, s.Settle(t.Context(), l, nil, []outbox.Failure{{Record: head[0], Err: errRefused, Parked: true}}))
	fresh.Tool(t, old.Tool(t, nil, "pg_dump", "postgres"), "psql", "-q", "-v", "ON_ERROR_STOP=1", "postgres")
	old.Kill(t)

	s, err = pgoutbox.New(pgtest.Pool(t, fresh.URL()), pgoutbox.Config{})
	require.NoError(t, err)
	require.NoError(t, s.Verify(t.Context()))
	var p outboxtest.Publisher
	three(t, s, &p)
	write(t, outbox.New(s, outbox.Config{}), half+1, perKey())
	arrived(t, &p, (keys-1)*perKey())
	n, err := s.Requeue(t.Context(), head[0].Seq)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	arrived(t, &p, keys*perKey())
	check(t, p.Messages(), perKey(), 0)
	after, err := s.Lease(t.Context(), "after the restore", 2*time.Second)
	require.NoError(t, err)
	for bucket, epoch := range after.Epochs {
		if epoch != 0 {
			require.Greater(t, epoch, l.Epochs[bucket])
		}
	}
}

// failures keeps the errors that relays report.
type failures struct {
	mu   sync.Mutex
	errs []error
}

func (f *failures) add(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.errs = append(f.errs, err)
}

func (f *failures) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.errs)
}

// The database takes no writes for a while: clear errors, a pause between tries, and recovery without a hand.
func TestDatabaseReadOnly(t *testing.T) {
	t.Parallel()
	server := pgtest.Start(t)
	setReadOnly := func(on string) {
		url := server.URL() + "&default_transaction_read_only=off" // this connection may
		pgtest.Exec(t, url, "ALTER SYSTEM SET default_transaction_read_only = "+on)
		pgtest.Exec(t, url, "SELECT pg_reload_conf()")
	}
	s := newStore(t, pgtest.Pool(t, server.URL()), pgoutbox.Config{})
	ob := outbox.New(s, outbox.Config{})
	write(t, ob, 1, 1)
	setReadOnly("on")
	publish := func() error {
		return ob.InTx(t.Context(), func(ctx context.Context, tx pgx.Tx) error { // rolled back in any case
			return errors.Join(ob.Publish(ctx, tx, numbered(0, 2)), errRefused)
		})
	}
	pgtest.Eventually(t, "the setting", func() bool { return strings.Contains(publish().Error(), "read-only transaction") })
	require.ErrorContains(t, publish(), "read-only transaction")
	var f failures
	var p outboxtest.Publisher
	began := time.Now()
	run(t, s, &p, quick("relay"), outbox.OnError(f.add))
	pgtest.Eventually(t, "errors", func() bool { return f.count() > 10 })
	errs, elapsed := f.count(), time.Since(began)
	require.LessOrEqual(t, errs, 20+2*int(elapsed/quick("").PollMax), "no hot loop")
	require.ErrorContains(t, f.errs[0], "read-only transaction")
	require.Empty(t, p.Messages())
	setReadOnly("off")
	empty(t, s)
	check(t, p.Messages(), 1, 0)
}

// The disk is full for a while: clear errors, and recovery when there is room, with nothing lost.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=160m,mode=755"); err != nil {
		t.Skipf("a small file system cannot be mounted here (%v): run as root", err)
	}
	t.Cleanup(func() {
		// The server's processes end a moment after the one that was killed.
		pgtest.Eventually(t, "unmounting", func() bool { return syscall.Unmount(dir, 0) == nil })
	})
	if info, err := os.Stat(filepath.Dir(dir)); err != nil || info.Mode().Perm()&1 == 0 {
		require.NoError(t, os.Chmod(filepath.Dir(dir), 0o755)) // the server runs as another user
	}
	server := pgtest.StartIn(t, dir, "-c", "max_wal_size=32MB", "-c", "min_wal_size=32MB")
	s := newStore(t, pgtest.Pool(t, server.URL()), pgoutbox.Config{})
	ob := outbox.New(s, outbox.Config{})
	var p outboxtest.Publisher
	p.Refuse(func(pubsub.Message) error { return errRefused }) // the broker is down as well, so that the outbox grows
	run(t, s, &p, quick("relay"))

	stored, full := 0, errors.New("not full")
	payload := make([]byte, 1<<18)
	_, _ = rand.Read(payload) // so that it cannot be compressed
	for ; stored < 2000; stored++ {
		m := pubsub.Message{ID: fmt.Sprintf("0/%d", stored+1), Topic: "t", Key: "0", Payload: payload}
		if full = storeIn(ob, m); full != nil {
			break
		}
	}
	require.Error(t, full)
	t.Logf("after %d messages: %v", stored, full)

	require.ErrorContains(t, full, "53100", "the server says what is wrong")
	// A person makes room.
	require.NoError(t, syscall.Mount("", dir, "", syscall.MS_REMOUNT, "size=400m,mode=755"))
	pgtest.Eventually(t, "recovery", func() bool {
		return storeIn(ob, pubsub.Message{ID: "after", Topic: "t", Key: "after"}) == nil
	})
	p.Refuse(nil)
	empty(t, s)
	ids := map[string]bool{}
	for _, m := range p.Messages() {
		ids[m.ID] = true
	}
	for n := range stored {
		require.True(t, ids[fmt.Sprintf("0/%d", n+1)], "message %d was committed", n+1)
	}
	require.True(t, ids["after"])
}

func storeIn(ob *outbox.Outbox[pgx.Tx], m pubsub.Message) error {
	ctx, cancel := context.WithTimeout(context.Background(), pgtest.Patience)
	defer cancel()
	return ob.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error { return ob.Publish(ctx, tx, m) })
}
