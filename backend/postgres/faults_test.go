package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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

var errRefused = errors.New("refused")

// arrived waits until the publisher has taken n distinct messages.
func arrived(t testing.TB, p *outboxtest.Publisher, n int) {
	t.Helper()
	count := 0
	look := func() int { count = distinct(p.Messages()); return count }
	wait(t, fmt.Sprint(n, " messages"), look, func() bool { return count >= n })
}

// The broker is down: nothing is lost or parked, and it is asked about once per PollMax by each relay.
func TestF03_BrokerDown(t *testing.T) {
	t.Parallel()
	s, _, _ := newDatabase(t, pgoutbox.Config{})
	var p outboxtest.Publisher
	p.Refuse(func(pubsub.Message) error { return errRefused })
	write(t, outbox.New(s, outbox.Config{}), 1, perKey())
	began := time.Now()
	relays := three(t, s, &p)
	tries := 100
	if perKey() > 20 {
		tries = 9000 // about 60 s
	}
	wait(t, "tries", p.Calls, func() bool { return p.Calls() >= tries })
	calls, elapsed := p.Calls(), time.Since(began)
	// Each relay doubles its pause from 5 ms to PollMax. Twice as much, and some to begin with, is no hot loop; that were thousands.
	require.LessOrEqual(t, calls, 60+2*3*int(elapsed/quick("").PollMax))
	p.Refuse(nil)
	arrived(t, &p, keys*perKey())
	check(t, p.Messages(), perKey(), 0)
	for _, r := range relays {
		require.Zero(t, r.Stats().GivenUp)
	}
}

// The broker takes messages and its answer is lost: they are repeated with the same ID, and order holds for first occurrences.
func TestF04_AnswerLost(t *testing.T) {
	t.Parallel()
	s, _, _ := newDatabase(t, pgoutbox.Config{})
	write(t, outbox.New(s, outbox.Config{}), 1, perKey())
	var p outboxtest.Publisher
	var calls, lost atomic.Int64
	three(t, s, publisherFunc(func(ctx context.Context, msgs ...pubsub.Message) error {
		if err := p.Publish(ctx, msgs...); err != nil {
			return err
		}
		if calls.Add(1)%10 == 0 {
			lost.Add(int64(len(msgs)))
			return context.DeadlineExceeded
		}
		return nil
	}))
	empty(t, s)
	check(t, p.Messages(), perKey(), int(lost.Load()))
	require.Greater(t, len(p.Messages()), keys*perKey(), "answers were lost")
}

// A transaction that has its ID first changes the aggregate last: order is by the lock on the aggregate, not by the ID.
func TestF07_OrderOfTransactionIDsDoesNotMatter(t *testing.T) {
	t.Parallel()
	for _, keyLock := range []bool{false, true} {
		t.Run(fmt.Sprint("KeyLock=", keyLock), func(t *testing.T) {
			s, pool, _ := newDatabase(t, pgoutbox.Config{KeyLock: keyLock})
			_, err := pool.Exec(t.Context(), "CREATE TABLE aggregate (id TEXT PRIMARY KEY, version BIGINT); INSERT INTO aggregate VALUES ('0', 0)")
			require.NoError(t, err)
			ob := outbox.New(s, outbox.Config{})
			change := func(ctx context.Context, tx pgx.Tx, n int) error {
				if !keyLock {
					if _, err := tx.Exec(ctx, "UPDATE aggregate SET version = $1", n); err != nil {
						return err
					}
				}
				return ob.Publish(ctx, tx, numbered(0, n))
			}
			var p outboxtest.Publisher
			three(t, s, &p)
			const last = 30
			for n := 1; n <= last; n += 2 {
				require.NoError(t, ob.InTx(t.Context(), func(ctx context.Context, early pgx.Tx) error {
					if _, err := early.Exec(ctx, "SELECT pg_current_xact_id()"); err != nil {
						return err
					}
					err := ob.InTx(ctx, func(ctx context.Context, late pgx.Tx) error { return change(ctx, late, n) })
					return errors.Join(err, change(ctx, early, n+1))
				}))
			}
			arrived(t, &p, last)
			inOrder(t, p.Messages())
		})
	}
}

// With KeyLock, writers who lock nothing themselves still take turns from Publish on: the order of the numbers is that of the commits.
func TestKeyLockSerialises(t *testing.T) {
	t.Parallel()
	s, _, _ := newDatabase(t, pgoutbox.Config{KeyLock: true})
	ob := outbox.New(s, outbox.Config{})
	entered, second := make(chan struct{}), make(chan error, 1)
	var order []string
	require.NoError(t, ob.InTx(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
		if err := ob.Publish(ctx, tx, numbered(2, 1), numbered(1, 1)); err != nil {
			return err
		}
		go func() {
			second <- ob.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
				close(entered)
				err := ob.Publish(ctx, tx, numbered(1, 2), numbered(2, 2))
				order = append(order, "second")
				return err
			})
		}()
		<-entered
		waiting := func() bool {
			var n int
			err := tx.QueryRow(ctx, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"+
				" AND database = (SELECT oid FROM pg_database WHERE datname = current_database())").Scan(&n)
			return err == nil && n == 1
		}
		pgtest.Eventually(t, "the second transaction waits for the key", waiting)
		order = append(order, "first")
		return nil
	}))
	require.NoError(t, <-second)
	require.Equal(t, []string{"first", "second"}, order)
}

// Transactions that stay open, in this and in another database, with rows of their own, stop nobody.
func TestF08_LongTransactions(t *testing.T) {
	t.Parallel()
	s, _, url := newDatabase(t, pgoutbox.Config{})
	for _, url := range []string{url, pgtest.Database(t)} {
		conn, err := pgx.Connect(t.Context(), url)
		require.NoError(t, err)
		t.Cleanup(func() { _ = conn.Close(context.Background()) })
		_, err = conn.Exec(t.Context(), "BEGIN ISOLATION LEVEL REPEATABLE READ; CREATE TABLE of_mine (x int); INSERT INTO of_mine VALUES (1)")
		require.NoError(t, err)
	}
	var p outboxtest.Publisher
	three(t, s, &p)
	write(t, outbox.New(s, outbox.Config{}), 1, perKey())
	arrived(t, &p, keys*perKey())
	check(t, p.Messages(), perKey(), 0)
}

// Writers roll back at random and commit in any order; what one transaction with the lowest numbers commits last of all arrives.
func TestF09_RollbacksAndLateCommits(t *testing.T) {
	t.Parallel()
	const writers = 8
	s, _, _ := newDatabase(t, pgoutbox.Config{})
	ob := outbox.New(s, outbox.Config{})
	var p outboxtest.Publisher
	three(t, s, &p)
	n := keys * perKey() / writers
	var wg sync.WaitGroup
	var committed atomic.Int64
	require.NoError(t, ob.InTx(t.Context(), func(ctx context.Context, late pgx.Tx) error {
		if err := ob.Publish(ctx, late, pubsub.Message{ID: "late", Topic: "t", Key: "late"}); err != nil {
			return err
		}
		for w := range writers {
			wg.Go(func() {
				for i := range n {
					err := ob.InTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
						if rand.IntN(3) > 0 {
							return ob.Publish(ctx, tx, pubsub.Message{ID: fmt.Sprint("kept ", w, " ", i), Topic: "t", Key: fmt.Sprint(w)})
						}
						return errors.Join(ob.Publish(ctx, tx, pubsub.Message{ID: "rolled back", Topic: "t", Key: "late"}), errRefused)
					})
					switch {
					case err == nil:
						committed.Add(1)
					case !errors.Is(err, errRefused):
						t.Errorf("writer %d: %v", w, err)
					}
				}
			})
		}
		wg.Wait()
		empty(t, s) // what is committed is gone; the number of the late one lies below all of it
		return nil
	}))
	kept := func(msgs []pubsub.Message) (n int) {
		for _, m := range msgs {
			if strings.HasPrefix(m.ID, "kept ") {
				n++
			}
		}
		return n
	}
	last := func() bool {
		return slices.ContainsFunc(p.Messages(), func(m pubsub.Message) bool { return m.ID == "late" })
	}
	pgtest.Eventually(t, "the late commit", last)
	require.EqualValues(t, committed.Load(), kept(p.Messages()), "every committed transaction's message, once")
	require.False(t, slices.ContainsFunc(p.Messages(), func(m pubsub.Message) bool { return m.ID == "rolled back" }))
}

// The head of one key is refused for good: it is parked, its key waits, the others flow, and a person repairs it.
func TestF10_PoisonHead(t *testing.T) {
	t.Parallel()
	s, _, _ := newDatabase(t, pgoutbox.Config{})
	var p outboxtest.Publisher
	p.Refuse(func(m pubsub.Message) error {
		if m.ID == "0/2" && m.Header["repaired"] == "" {
			return errRefused
		}
		return nil
	})
	parked := make(chan outbox.Failure, 3)
	write(t, outbox.New(s, outbox.Config{}), 1, perKey())
	three(t, s, &p, outbox.OnFailure(func(f outbox.Failure) {
		if f.Parked {
			parked <- f
		}
	}))
	more := func() bool { // what is published beside it shows that the message is to blame
		store(t, outbox.New(s, outbox.Config{}), pubsub.Message{ID: "beside", Topic: "t", Key: "0/2 beside", Payload: []byte("1")})
		return len(parked) > 0
	}
	pgtest.Eventually(t, "parking", more)
	f := <-parked
	require.Equal(t, "0/2", f.Record.Message.ID)
	b := outbox.Backlog{}
	look := func() int {
		var err error
		b, err = s.Backlog(t.Context())
		require.NoError(t, err)
		return int(b.Pending)
	}
	wait(t, "the others", look, func() bool { return b.Pending == int64(perKey()-1) })
	require.EqualValues(t, 1, b.Parked)
	m := f.Record.Message
	m.Header = pubsub.Header{"repaired": "yes"}
	n, err := s.Edit(t.Context(), f.Record.Seq, m)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	_, err = s.Requeue(t.Context(), f.Record.Seq)
	require.NoError(t, err)
	empty(t, s)
	msgs := slices.DeleteFunc(p.Messages(), func(m pubsub.Message) bool { return m.ID == "beside" })
	check(t, msgs, perKey(), 0)
}

// A stored header that cannot be read stops its key and no other: the message is parked with its error, and a person mends it.
func TestUnreadableHeaderIsParked(t *testing.T) {
	kinds(t, func(t *testing.T, kind string) {
		s, pool, url := newDatabase(t, pgoutbox.Config{})
		write(t, outbox.New(s, outbox.Config{}), 1, 3)
		_, err := pool.Exec(t.Context(), `UPDATE backstay_outbox SET header = '{"torn' WHERE id = '7/2'`)
		require.NoError(t, err)
		var p outboxtest.Publisher
		parked := make(chan outbox.Failure, 1)
		run(t, queue(t, url, kind), &p, quick("relay"), outbox.OnFailure(func(f outbox.Failure) { parked <- f }))
		arrived(t, &p, keys*3-2)
		f := <-parked
		require.True(t, f.Parked)
		require.ErrorContains(t, f.Err, "header cannot be read")

		list, err := s.Parked(t.Context(), 0, 10)
		require.NoError(t, err)
		require.Len(t, list, 1)
		require.Equal(t, "7/2", list[0].Record.Message.ID)
		require.Contains(t, list[0].Reason, "header cannot be read")
		n, err := s.Edit(t.Context(), list[0].Record.Seq, list[0].Record.Message)
		require.NoError(t, err)
		require.Equal(t, 1, n)
		_, err = s.Requeue(t.Context(), list[0].Record.Seq)
		require.NoError(t, err)
		empty(t, s)
		check(t, p.Messages(), 3, 0)
	})
}

// The clocks of the nodes are an hour before or behind the database's: only the latter counts. The database's clock is put forward
// and back, which to the nodes is the same as theirs being wrong.
func TestF11_ClocksThatDiffer(t *testing.T) {
	t.Parallel()
	for _, shift := range []string{"1 hour", "-1 hour"} {
		t.Run(shift, func(t *testing.T) {
			t.Parallel()
			url := pgtest.Database(t)
			pgtest.Exec(t, url, `CREATE SCHEMA wrong; CREATE FUNCTION wrong.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS
				$$ SELECT pg_catalog.clock_timestamp() + interval '`+shift+`' $$`)
			url += "&search_path=wrong,pg_catalog,public"
			s := newStore(t, pgtest.Pool(t, url+"&application_name=maker"), pgoutbox.Config{})
			_, err := s.Lease(t.Context(), "dead", 2*time.Second) // dies at once; its buckets are taken over when its lease has run out
			require.NoError(t, err)
			var p outboxtest.Publisher
			var n atomic.Int64
			p.Refuse(func(pubsub.Message) error { // with delays to wait out
				if n.Add(1)%50 == 0 {
					return errRefused
				}
				return nil
			})
			three(t, s, &p)
			write(t, outbox.New(s, outbox.Config{}), 1, perKey())
			arrived(t, &p, keys*perKey())
			check(t, p.Messages(), perKey(), 0)
			in := outbox.NewInbox(s, outbox.InboxConfig{Retention: 10 * time.Minute})
			once := func() (first bool) {
				require.NoError(t, s.InTx(t.Context(), func(ctx context.Context, tx pgx.Tx) error {
					_, err := outbox.Once(ctx, in, tx, "c", "id", func(context.Context) (struct{}, error) { first = true; return struct{}{}, nil })
					return err
				}))
				return first
			}
			require.True(t, once())
			_, err = in.Clean(t.Context())
			require.NoError(t, err)
			require.False(t, once(), "cleaned before its time")
		})
	}
}
