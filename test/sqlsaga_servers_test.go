package test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sagatest"
	"github.com/backstay-go/backstay/saga/sqlsaga"
)

// sagaServer is a database server on loopback, shared with other tests.
type sagaServer struct {
	name    string
	dialect sqlsaga.Dialect
	start   string // how to start it
	open    func(database string) (*sql.DB, error)
}

func sagaServers() []sagaServer {
	return []sagaServer{
		{"PostgreSQL", sqlsaga.PostgreSQL(), "pg_ctlcluster 15 main start", func(database string) (*sql.DB, error) {
			if database == "" {
				database = "postgres"
			}
			return sql.Open("pgx", "postgres://postgres@127.0.0.1:5432/"+database+"?sslmode=disable")
		}},
		{"MySQL", sqlsaga.MySQL(), "mariadbd", func(database string) (*sql.DB, error) {
			cfg := mysql.NewConfig()
			cfg.User, cfg.Net, cfg.Addr, cfg.DBName = "root", "tcp", "127.0.0.1:3306", database
			connector, err := mysql.NewConnector(cfg)
			if err != nil {
				return nil, err
			}
			return sql.OpenDB(connector), nil
		}},
	}
}

var sagaDatabases atomic.Int64

// database makes a database of the test's own.
func (s sagaServer) database(t *testing.T) *sql.DB {
	t.Helper()
	server, err := s.open("")
	require.NoError(t, err)
	if err := server.PingContext(t.Context()); err != nil {
		require.NoError(t, server.Close())
		require.NotEqual(t, "1", os.Getenv("BACKSTAY_REQUIRE_SERVICES"), err)
		t.Skipf("%s does not answer on loopback (start it with %q): %v", s.name, s.start, err)
	}
	name := fmt.Sprintf("bstest_%d_saga%d", os.Getpid(), sagaDatabases.Add(1))
	_, err = server.ExecContext(t.Context(), "CREATE DATABASE "+name)
	require.NoError(t, err)
	db, err := s.open(name)
	require.NoError(t, err)
	db.SetMaxOpenConns(12)
	t.Cleanup(func() {
		require.NoError(t, db.Close())
		_, err := server.ExecContext(context.Background(), "DROP DATABASE "+name)
		require.NoError(t, err)
		require.NoError(t, server.Close())
	})
	return db
}

func onSagaServers(t *testing.T, test func(t *testing.T, s sagaServer, db *sql.DB)) {
	for _, s := range sagaServers() {
		t.Run(s.name, func(t *testing.T) { test(t, s, s.database(t)) })
	}
}

func TestSagaStoresOnServersKeepTheContract(t *testing.T) {
	onSagaServers(t, func(t *testing.T, s sagaServer, db *sql.DB) {
		var n atomic.Int64
		sagatest.Run(t, func(t *testing.T) saga.Store {
			store, err := sqlsaga.New(db, s.dialect, sqlsaga.WithPrefix(fmt.Sprintf("t%d_", n.Add(1))))
			require.NoError(t, err)
			require.NoError(t, store.Migrate(t.Context()))
			return store
		})
	})
}

func TestSagaMigrationsByManyNodesAtOnce(t *testing.T) {
	onSagaServers(t, func(t *testing.T, s sagaServer, db *sql.DB) {
		store, err := sqlsaga.New(db, s.dialect)
		require.NoError(t, err)
		require.ErrorIs(t, store.Verify(t.Context()), sqlsaga.ErrSchema)
		var nodes sync.WaitGroup
		var failed atomic.Pointer[error]
		for range 8 {
			nodes.Go(func() {
				if err := store.Migrate(t.Context()); err != nil {
					failed.Store(&err)
				}
			})
		}
		nodes.Wait()
		if err := failed.Load(); err != nil {
			require.NoError(t, *err)
		}
		require.NoError(t, store.Verify(t.Context()))
		_, err = db.ExecContext(t.Context(), "INSERT INTO backstay_saga_schema (version) VALUES (99)")
		require.NoError(t, err)
		require.ErrorIs(t, store.Migrate(t.Context()), sqlsaga.ErrSchema)
		require.ErrorContains(t, store.Verify(t.Context()), "version 99")
	})
}

type deposit struct{ Amount int }

// A step in the store's own transaction has one effect, although each is tried twice and two nodes share the work.
func TestSagaStepsInTheTransactionHaveOneEffect(t *testing.T) {
	onSagaServers(t, func(t *testing.T, s sagaServer, db *sql.DB) {
		store, err := sqlsaga.New(db, s.dialect)
		require.NoError(t, err)
		require.NoError(t, store.Migrate(t.Context()))
		_, err = db.ExecContext(t.Context(), "CREATE TABLE ledger (id VARCHAR(64) NOT NULL, amount INTEGER NOT NULL)")
		require.NoError(t, err)
		insert := "INSERT INTO ledger (id, amount) VALUES (?, ?)"
		if s.name == "PostgreSQL" {
			insert = "INSERT INTO ledger (id, amount) VALUES ($1, $2)"
		}
		book := func(ctx context.Context, d *deposit, amount int) error {
			a, _ := saga.Current(ctx)
			d.Amount += amount
			_, err := sqlsaga.Tx(ctx).ExecContext(ctx, insert, a.ID, amount)
			return err
		}
		d := saga.MustDefine("deposit", 1, saga.Step[deposit]{
			Name: "book", InTx: true,
			Do: func(ctx context.Context, d *deposit) error {
				a, _ := saga.Current(ctx)
				if err := book(ctx, d, 1); err != nil || a.Number > 1 {
					return err
				}
				return errors.New("after the effect")
			},
			Undo: func(ctx context.Context, d *deposit) error { return book(ctx, d, -1) },
		}, saga.Step[deposit]{Name: "refuse", Do: func(ctx context.Context, _ *deposit) error {
			if a, _ := saga.Current(ctx); strings.HasPrefix(a.ID, "bad") {
				return saga.Permanent(errors.New("refused"))
			}
			return nil
		}})
		var nodes []*saga.Runner
		for range 2 {
			r, err := saga.NewRunner(store, saga.Config{PollMax: 20 * time.Millisecond}, d)
			require.NoError(t, err)
			ctx, cancel := context.WithCancel(t.Context())
			stopped := make(chan error, 1)
			go func() { stopped <- r.Run(ctx) }()
			t.Cleanup(func() { cancel(); require.NoError(t, <-stopped) })
			nodes = append(nodes, r)
		}
		for i := range 10 {
			require.NoError(t, saga.Start(t.Context(), nodes[i%2], d, fmt.Sprint("good", i), deposit{}))
			require.NoError(t, saga.Start(t.Context(), nodes[i%2], d, fmt.Sprint("bad", i), deposit{}))
		}
		for i := range 10 {
			_, err := saga.Wait(t.Context(), nodes[0], d, fmt.Sprint("good", i))
			require.NoError(t, err)
			_, err = saga.Wait(t.Context(), nodes[0], d, fmt.Sprint("bad", i))
			require.ErrorIs(t, err, saga.ErrCompensated)
		}
		var rows, sum, most int
		require.NoError(t, db.QueryRowContext(t.Context(), "SELECT count(*), sum(amount) FROM ledger").Scan(&rows, &sum))
		require.NoError(t, db.QueryRowContext(t.Context(), "SELECT max(n) FROM (SELECT count(*) AS n FROM ledger GROUP BY id, amount) x").Scan(&most))
		require.Equal(t, []int{30, 10, 1}, []int{rows, sum, most})
	})
}
