package mysqloutbox_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	osexec "os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/mysql/mysqloutbox"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxtest"
	"github.com/backstay-go/backstay/outbox/sqloutbox"
	"github.com/backstay-go/backstay/pubsub"
)

// The server is killed again and again while a writer commits and three relays publish. What the writer was told to be committed is
// published, what it was told not to be is not, and of what is in doubt the row tells.
func TestF15_ServerKilled(t *testing.T) {
	t.Parallel()
	private := newServer(t)
	s, db := migrated(t, databaseOn(t, private.url()))
	exec(t, db, "CREATE TABLE business (n INT PRIMARY KEY)")
	p := &outboxtest.Publisher{}
	var fenced atomic.Int64
	for range 3 {
		start(t, s, p, fast, outbox.OnError(func(err error) {
			if errors.Is(err, outbox.ErrFenced) {
				fenced.Add(1)
			}
		}))
	}
	ob := outbox.New(s, outbox.Config{})
	commit := func(n int) error {
		return ob.InTx(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
			if _, err := tx.ExecContext(ctx, "INSERT INTO business VALUES (?)", n); err != nil {
				return err
			}
			msgs := make([]pubsub.Message, 10)
			for i := range msgs {
				msgs[i] = pubsub.Message{ID: fmt.Sprint(n, "/", i), Topic: "t", Key: fmt.Sprint(i)}
			}
			return ob.Publish(ctx, tx, msgs...)
		})
	}
	kills := either(2, 20)
	outcome := map[int]error{}
	for range kills {
		stop := make(chan struct{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				outcome[len(outcome)] = commit(len(outcome))
				select {
				case <-stop:
					return
				default:
				}
			}
		}()
		before := len(p.Messages())
		eventually(t, "progress", func() bool { return len(p.Messages()) > before+either(100, 500)+rand.IntN(200) }, func() int64 { return int64(len(p.Messages())) })
		private.kill(t)
		close(stop)
		<-done
		private.start(t)
	}
	outcome[len(outcome)] = commit(len(outcome))
	drained(t, s)

	published := map[string]int{}
	for _, m := range p.Messages() {
		published[m.ID]++
	}
	committed := map[int]bool{}
	rows, err := db.QueryContext(t.Context(), "SELECT n FROM business")
	require.NoError(t, err)
	for rows.Next() {
		var n int
		require.NoError(t, rows.Scan(&n))
		committed[n] = true
	}
	require.NoError(t, rows.Close())
	require.NoError(t, rows.Err())
	doubts := 0
	for n, err := range outcome {
		switch {
		case err == nil:
			require.True(t, committed[n], "%d was confirmed", n)
		case errors.Is(err, outbox.ErrInDoubt):
			doubts++
		default:
			require.False(t, committed[n], "%d failed with %v", n, err)
		}
		for i := range 10 {
			require.Equal(t, committed[n], published[fmt.Sprint(n, "/", i)] > 0, "message %d of transaction %d", i, n)
		}
	}
	t.Logf("%d transactions, %d in doubt, %d kills, %d messages, %d published", len(outcome), doubts, kills, 10*len(committed), len(p.Messages()))
	require.LessOrEqual(t, len(p.Messages()), 10*len(committed)+(3*kills+int(fenced.Load()))*fast.Batch, "repetitions")
}

// through is the URL of a database by way of a proxy.
func through(t testing.TB, target string) (*proxy, string) {
	t.Helper()
	u, err := url.Parse(target)
	require.NoError(t, err)
	p := newProxy(t, u.Host)
	u.Host = p.listener.Addr().String()
	return p, u.String()
}

// The answer to a commit is lost. That the connection is gone proves nothing: the transaction took place.
func TestF15_CommitInDoubt(t *testing.T) {
	t.Parallel()
	direct := newDatabase(t)
	cutter, indirect := through(t, direct)
	s, _ := migrated(t, direct)
	ob, err := sqloutbox.New(open(t, indirect), sqloutbox.MySQL(), sqloutbox.Config{})
	require.NoError(t, err)
	n := either(10, 100)
	for i := range n {
		cutter.cutReply("COMMIT")
		err := storeRound(t.Context(), ob, i+1)
		require.ErrorIs(t, err, outbox.ErrInDoubt)
	}
	p := &outboxtest.Publisher{}
	start(t, s, p, fast)
	drained(t, s)
	verify(t, p.Messages(), n, fast.Batch)

	cutter.cutReply("INSERT INTO backstay_outbox ")
	err = storeRound(t.Context(), ob, n+1)
	require.Error(t, err)
	require.NotErrorIs(t, err, outbox.ErrInDoubt, "the commit was never sent")
	drained(t, s)
	verify(t, p.Messages(), n, fast.Batch)
}

// Every connection of the relays is cut, without a word to the server, again and again: they open others.
func TestF16_ConnectionsCut(t *testing.T) {
	t.Parallel()
	direct := newDatabase(t)
	cutter, indirect := through(t, direct)
	s, _ := migrated(t, direct)
	p := &outboxtest.Publisher{}
	var fenced atomic.Int64
	for range 3 {
		q, err := sqloutbox.New(open(t, indirect), sqloutbox.MySQL(), sqloutbox.Config{})
		require.NoError(t, err)
		start(t, q, p, fast, outbox.OnError(func(err error) {
			if errors.Is(err, outbox.ErrFenced) {
				fenced.Add(1)
			}
		}))
	}
	cuts, stored := either(12, 100), 0
	for range cuts {
		stored++
		putRound(t, s, stored)
		before := len(p.Messages())
		eventually(t, "progress", func() bool { return len(p.Messages()) > before+rand.IntN(keys/2) }, func() int64 { return int64(len(p.Messages())) })
		cutter.cut()
	}
	drained(t, s)
	verify(t, p.Messages(), stored, (3*cuts+int(fenced.Load()))*fast.Batch)
}

// The tables are dumped in the midst of work and restored into a fresh server: order, parked messages and leases go on.
func TestF17_DumpAndRestore(t *testing.T) {
	t.Parallel()
	from := newDatabase(t)
	old, _ := migrated(t, from)
	for _, program := range []string{"mariadb-dump", "mariadb"} {
		if _, err := osexec.LookPath(program); err != nil {
			absent(t, program+" is not in the PATH: install it with: apt-get install mariadb-client")
		}
	}
	rounds := either(5, 100)
	for n := range rounds {
		putRound(t, old, n+1)
	}
	p := &outboxtest.Publisher{}
	_, stop := start(t, old, p, fast)
	require.NoError(t, p.Wait(t.Context(), func(taken []pubsub.Message, _ int) bool { return len(taken) >= 2*keys }))
	stop()
	left, err := old.Backlog(t.Context())
	require.NoError(t, err)
	lost, err := old.Lease(t.Context(), "a relay of the old server", time.Hour)
	require.NoError(t, err)
	head, err := old.Fetch(t.Context(), lost, 1)
	require.NoError(t, err)
	parked := 0
	if len(head) > 0 {
		parked = 1
		require.NoError(t, old.Settle(t.Context(), lost, nil, []outbox.Failure{{Record: head[0], Err: errRefused, Parked: true}}))
	}
	require.NoError(t, old.Release(t.Context(), lost))

	private := newServer(t)
	to := databaseOn(t, private.url())
	dump := osexec.CommandContext(t.Context(), "mariadb-dump", client(t, from)...)
	restore := osexec.CommandContext(t.Context(), "mariadb", client(t, to)...)
	restore.Stdin, err = dump.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, dump.Start())
	out, err := restore.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.NoError(t, dump.Wait())

	fresh, db := migrated(t, to)
	require.NoError(t, fresh.Verify(t.Context()))
	restored, err := fresh.Backlog(t.Context())
	require.NoError(t, err)
	require.Equal(t, left.Pending, restored.Pending)
	list, err := fresh.Parked(t.Context(), 0, 10)
	require.NoError(t, err)
	require.Len(t, list, parked)
	if parked > 0 {
		_, err = fresh.Requeue(t.Context(), list[0].Record.Seq)
		require.NoError(t, err)
	}
	putRound(t, fresh, rounds+1)
	for range 3 {
		start(t, fresh, p, fast)
	}
	drained(t, fresh)
	verify(t, p.Messages(), rounds+1, 3*fast.Batch)
	require.NoError(t, db.PingContext(t.Context()))
}

// client is the command line that reaches a database.
func client(t testing.TB, target string) []string {
	t.Helper()
	u, err := url.Parse(target)
	require.NoError(t, err)
	return []string{"--no-defaults", "--protocol=tcp", "-h", u.Hostname(), "-P", u.Port(), "-u", u.User.Username(), strings.TrimPrefix(u.Path, "/")}
}

// The server is read-only for a while: writer and relay get errors that say so, the relay waits, and all goes on afterwards.
func TestF29_ReadOnlyServer(t *testing.T) {
	t.Parallel()
	private := newServer(t)
	target := databaseOn(t, private.url())
	_, admin := migrated(t, target)
	exec(t, admin, "CREATE USER app@'127.0.0.1'")
	exec(t, admin, "GRANT SELECT, INSERT, UPDATE, DELETE ON *.* TO app@'127.0.0.1'")
	db, err := mysqloutbox.Open(t.Context(), strings.Replace(target, "root@", "app@", 1), mysqloutbox.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	s, err := sqloutbox.New(db, sqloutbox.MySQL(), sqloutbox.Config{})
	require.NoError(t, err)
	require.NoError(t, s.Verify(t.Context()))
	putRound(t, s, 1)

	exec(t, admin, "SET GLOBAL read_only = ON")
	require.ErrorContains(t, storeRound(t.Context(), s, 2), "read-only")
	p := &outboxtest.Publisher{}
	failed := make(chan error, 1000)
	start(t, s, p, fast, outbox.OnError(func(err error) {
		select {
		case failed <- err:
		default:
		}
	}))
	for range 3 {
		require.ErrorContains(t, <-failed, "read-only")
	}
	exec(t, admin, "SET GLOBAL read_only = OFF")
	putRound(t, s, 2)
	drained(t, s)
	verify(t, p.Messages(), 2, fast.Batch)
}
