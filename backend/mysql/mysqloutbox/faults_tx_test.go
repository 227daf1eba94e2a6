package mysqloutbox_test

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxtest"
	"github.com/backstay-go/backstay/outbox/sqloutbox"
	"github.com/backstay-go/backstay/pubsub"
)

func begin(t testing.TB, db *sql.DB) *sql.Tx {
	t.Helper()
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	t.Cleanup(func() { _ = tx.Rollback() })
	return tx
}

func execTx(t testing.TB, tx *sql.Tx, query string, args ...any) {
	t.Helper()
	_, err := tx.ExecContext(t.Context(), query, args...)
	require.NoError(t, err)
}

// A transaction begins, and writes elsewhere, before another changes the aggregate; then it changes the aggregate too. The order of
// the messages is that of the changes.
func TestF07_OrderOfTheAggregateNotOfTransactions(t *testing.T) {
	s, db := newStore(t)
	exec(t, db, "CREATE TABLE elsewhere (id INT PRIMARY KEY)")
	exec(t, db, "CREATE TABLE aggregates (id VARCHAR(20) PRIMARY KEY, version INT NOT NULL)")
	ob := outbox.New(s, outbox.Config{})
	change := func(tx *sql.Tx, key string) {
		execTx(t, tx, "UPDATE aggregates SET version = version + 1 WHERE id = ?", key)
		var version int
		require.NoError(t, tx.QueryRowContext(t.Context(), "SELECT version FROM aggregates WHERE id = ? FOR UPDATE", key).Scan(&version))
		require.NoError(t, ob.Publish(t.Context(), tx, pubsub.Message{Topic: "t", Key: key, Payload: strconv.AppendInt(nil, int64(version), 10)}))
	}
	p := &outboxtest.Publisher{}
	start(t, s, p, fast)
	pairs := either(1, 50) // of transactions for each key
	for i := range keys * pairs {
		key := fmt.Sprint(i % keys)
		exec(t, db, "INSERT IGNORE INTO aggregates VALUES (?, 0)", key)
		first, second := begin(t, db), begin(t, db)
		execTx(t, first, "INSERT INTO elsewhere VALUES (?)", i)
		change(second, key)
		require.NoError(t, second.Commit())
		change(first, key)
		require.NoError(t, first.Commit())
	}
	drained(t, s)
	last := map[string]int{}
	for _, m := range p.Messages() {
		version, err := strconv.Atoi(string(m.Payload))
		require.NoError(t, err)
		require.LessOrEqual(t, version, last[m.Key]+1, "key %s", m.Key)
		last[m.Key] = max(last[m.Key], version)
	}
	require.Len(t, last, keys)
	for key, version := range last {
		require.Equal(t, 2*pairs, version, "key %s", key)
	}
}

// Transactions that stay open, in the same tables and in another database, hold up neither relays nor operators nor cleaning.
func TestF08_LongTransactionsStallNothing(t *testing.T) {
	url := newDatabase(t)
	s, db := migrated(t, url)
	other := open(t, databaseOn(t, serverURL()))
	exec(t, other, "CREATE TABLE t (id INT PRIMARY KEY)")
	foreign := begin(t, other)
	execTx(t, foreign, "INSERT INTO t VALUES (1)")

	ob := outbox.New(s, outbox.Config{})
	inbox := outbox.NewInbox(s, outbox.InboxConfig{Retention: time.Millisecond})
	// Both open transactions have a row at the beginning of the tables and one at the end.
	var open []*sql.Tx
	message := func(id string) pubsub.Message {
		return pubsub.Message{ID: id, Topic: "t", Key: id, Payload: []byte("1")}
	}
	for i := range 2 {
		tx := begin(t, db)
		require.NoError(t, ob.Publish(t.Context(), tx, message(fmt.Sprint("early", i))))
		_, _, err := s.Claim(t.Context(), tx, "a", fmt.Sprint("early", i), time.Millisecond)
		require.NoError(t, err)
		open = append(open, tx)
	}
	rounds := either(5, 100)
	for n := range rounds {
		putRound(t, s, n+1)
	}
	for i, tx := range open {
		require.NoError(t, ob.Publish(t.Context(), tx, message(fmt.Sprint("late", i))))
		_, _, err := s.Claim(t.Context(), tx, "z", fmt.Sprint("late", i), time.Millisecond)
		require.NoError(t, err)
	}
	p := &outboxtest.Publisher{}
	for range 3 {
		start(t, s, p, fast)
	}
	drained(t, s)
	verify(t, p.Messages(), rounds, 3*fast.Batch)

	require.NoError(t, inbox.Handler("b", func(context.Context, *sql.Tx, pubsub.Message) error { return nil })(t.Context(), message("handled")))
	eventually(t, "cleaning", func() bool {
		n, err := inbox.Clean(t.Context())
		require.NoError(t, err)
		return n == 1
	})
	for _, tx := range open {
		require.NoError(t, tx.Commit())
	}
	require.NoError(t, p.Wait(t.Context(), func(taken []pubsub.Message, _ int) bool { return len(taken) >= rounds*keys+4 }))
}

// Writers commit late, in any order, or roll back: what is published is what was committed.
func TestF09_LateCommitsAndRollbacks(t *testing.T) {
	s, _ := newStore(t)
	ob := outbox.New(s, outbox.Config{})
	p := &outboxtest.Publisher{}
	for range 3 {
		start(t, s, p, fast)
	}
	const writers = 8
	each := either(80, 1250)
	var mu sync.Mutex
	committed := map[string]bool{}
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				id := fmt.Sprint(w, "/", i)
				err := ob.InTx(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
					if err := ob.Publish(ctx, tx, pubsub.Message{ID: id, Topic: "t", Key: fmt.Sprint(w)}); err != nil {
						return err
					}
					<-time.After(rand.N(4 * time.Millisecond)) // so that others overtake
					if i%4 == 3 {
						return errRefused
					}
					return nil
				})
				if i%4 == 3 {
					continue
				}
				if err != nil {
					t.Errorf("%s: %v", id, err)
				}
				mu.Lock()
				committed[id] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	drained(t, s)
	published := map[string]bool{}
	for _, m := range p.Messages() {
		published[m.ID] = true
	}
	require.Equal(t, committed, published)
}

// The clock of a node is wrong by years, and its sessions have time zones of their own: leases and delays run on the database's
// clock alone. Inside a synctest bubble it is the year 2000.
func TestF11_WrongClocks(t *testing.T) {
	url := newDatabase(t)
	right, _ := migrated(t, url)
	held, err := right.Lease(t.Context(), "right", time.Hour)
	require.NoError(t, err)
	require.Equal(t, outbox.Buckets, held.Count())
	half := either(1, 50) // of the rounds
	for n := range half {
		putRound(t, right, n+1)
	}
	records, err := right.Fetch(t.Context(), held, keys)
	require.NoError(t, err)
	delayed := outbox.Failure{Record: records[0], Err: errRefused, Delay: time.Hour}
	require.NoError(t, right.Settle(t.Context(), held, nil, []outbox.Failure{delayed}))

	synctest.Test(t, func(t *testing.T) {
		require.Equal(t, 2000, time.Now().Year())
		wrong, db := migrated(t, url)
		l, err := wrong.Lease(t.Context(), "wrong", time.Hour)
		require.NoError(t, err)
		require.Zero(t, l.Count(), "the leases are in force")
		require.NoError(t, wrong.Release(t.Context(), l))

		again, err := wrong.Lease(t.Context(), "right", time.Hour)
		require.NoError(t, err)
		require.Equal(t, held.Epochs, again.Epochs)
		due, err := wrong.Fetch(t.Context(), again, 2*half*keys)
		require.NoError(t, err)
		require.Len(t, due, half*(keys-1), "the delay is in force")
		backlog, err := wrong.Backlog(t.Context())
		require.NoError(t, err)
		require.Less(t, backlog.OldestAge, time.Hour)
		for n := range half {
			putRound(t, wrong, half+n+1)
		}
		db.SetMaxOpenConns(1) // the one that gets the zone
		for _, zone := range []string{"+13:00", "-12:00"} {
			exec(t, db, "SET time_zone = ?", zone)
			l, err := wrong.Lease(t.Context(), "wrong", time.Hour)
			require.NoError(t, err)
			require.Zero(t, l.Count(), "the leases are in force")
			require.NoError(t, wrong.Release(t.Context(), l))
		}
	})
	require.NoError(t, right.Release(t.Context(), held))
	p := &outboxtest.Publisher{}
	start(t, right, p, fast)
	require.NoError(t, p.Wait(t.Context(), func(taken []pubsub.Message, _ int) bool { return len(taken) >= 2*half*(keys-1) }), "all keys but the delayed one")
}

// Every message is delivered several times, at the same time, by several consumers: each has one effect.
func TestF12_DuplicatesHaveOneEffect(t *testing.T) {
	for _, isolation := range []string{"REPEATABLE-READ", "READ-COMMITTED"} {
		t.Run(isolation, func(t *testing.T) {
			url := newDatabase(t)
			_, db := migrated(t, url)
			exec(t, db, "CREATE TABLE effects (id VARCHAR(20), seen INT NOT NULL) ENGINE = InnoDB")
			ids, deliveries := either(100, 2500), 4
			var wg sync.WaitGroup
			for range deliveries {
				s, err := sqloutbox.New(open(t, url+"?"+sessionIsolation(t, db)+"=%27"+isolation+"%27"), sqloutbox.MySQL(), sqloutbox.Config{})
				require.NoError(t, err)
				in := outbox.NewInbox(s, outbox.InboxConfig{})
				handle := in.Handler("c", func(ctx context.Context, tx *sql.Tx, m pubsub.Message) error {
					_, err := tx.ExecContext(ctx, "INSERT INTO effects VALUES (?, 1)", m.ID)
					if err == nil && rand.IntN(10) == 0 {
						return errRefused // its effect must go with it, and the message comes again
					}
					return err
				})
				for lane := range 2 {
					wg.Go(func() {
						for i := lane; i < ids; i += 2 {
							for {
								err := handle(t.Context(), pubsub.Message{ID: fmt.Sprint(i)})
								if err == nil {
									break
								}
								if err != errRefused {
									t.Errorf("%d: %v", i, err)
									return
								}
							}
						}
					})
				}
			}
			wg.Wait()
			var effects, distinct int
			require.NoError(t, db.QueryRowContext(t.Context(), "SELECT COUNT(*), COUNT(DISTINCT id) FROM effects").Scan(&effects, &distinct))
			require.Equal(t, ids, distinct)
			require.Equal(t, ids, effects)
		})
	}
}

// sessionIsolation is what the server calls the isolation of a session.
func sessionIsolation(t testing.TB, db *sql.DB) string {
	t.Helper()
	var name, value string
	require.NoError(t, db.QueryRowContext(t.Context(), "SHOW VARIABLES WHERE Variable_name IN ('tx_isolation', 'transaction_isolation')").Scan(&name, &value))
	return name
}

// A duplicate gets the winner's result although its snapshot is older than the winner's commit.
func TestF12_DuplicateWithAnOlderSnapshotGetsTheResult(t *testing.T) {
	s, db := newStore(t)
	in := outbox.NewInbox(s, outbox.InboxConfig{})
	once := func(tx *sql.Tx) (int, error) {
		return outbox.Once(t.Context(), in, tx, "c", "id", func(context.Context) (int, error) { return 7, nil })
	}
	late := begin(t, db)
	var n int
	require.NoError(t, late.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM backstay_inbox").Scan(&n)) // takes the snapshot
	winner := begin(t, db)
	_, err := once(winner)
	require.NoError(t, err)
	require.NoError(t, winner.Commit())
	result, err := once(late)
	require.NoError(t, err)
	require.Equal(t, 7, result)
	require.EqualValues(t, 1, in.Stats().Duplicates)
}

// A delivery after the retention has its effect again once Clean has run, and is a duplicate until then.
func TestF13_RedeliveryAfterRetention(t *testing.T) {
	s, db := newStore(t)
	in := outbox.NewInbox(s, outbox.InboxConfig{Retention: time.Millisecond})
	effects := 0
	handler := in.Handler("c", func(context.Context, *sql.Tx, pubsub.Message) error { effects++; return nil })
	messages := either(1, 10_000)
	handle := func() {
		for i := range messages {
			require.NoError(t, handler(t.Context(), pubsub.Message{ID: fmt.Sprint(i)}))
		}
	}
	handle()
	eventually(t, "the end of the retention", func() bool {
		var n int
		require.NoError(t, db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM backstay_inbox WHERE expires_at < UNIX_TIMESTAMP() * 1000").Scan(&n))
		return n == messages
	})
	handle()
	require.Equal(t, messages, effects)
	cleaned := 0
	eventually(t, "cleaning", func() bool {
		n, err := in.Clean(t.Context())
		require.NoError(t, err)
		cleaned += n
		return cleaned == messages
	})
	handle()
	require.Equal(t, 2*messages, effects)
}

// What the inbox could only shorten is refused, since two IDs might become one.
func TestInboxRefusesLongNames(t *testing.T) {
	s, _ := newStore(t)
	in := outbox.NewInbox(s, outbox.InboxConfig{})
	long := func(n int) string { return string(make([]byte, n)) }
	for _, c := range []struct {
		consumer, id int
		fits         bool
	}{{255, 1024, true}, {256, 1, false}, {1, 1025, false}} {
		err := in.Handler(long(c.consumer), func(context.Context, *sql.Tx, pubsub.Message) error { return nil })(t.Context(), pubsub.Message{ID: long(c.id)})
		if c.fits {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, "more than 255 and 1024")
		}
	}
}
