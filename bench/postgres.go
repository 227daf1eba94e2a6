package bench

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	_ "github.com/jackc/pgx/v5/stdlib" // for database/sql
)

// postgresURL is where the server is.
func postgresURL() string {
	if url := os.Getenv("BACKSTAY_POSTGRES_URL"); url != "" {
		return url
	}
	return "postgres://postgres@127.0.0.1:5432/postgres"
}

// postgresName is the database of this process, in which every benchmark has a schema of its own.
var postgresName = fmt.Sprintf("backstay-bench-%d", os.Getpid())

var postgresMade atomic.Bool

// postgresThere makes the database, or says why there is none, once for all cases.
var postgresThere = sync.OnceValue(func() error {
	if err := onPostgres(`CREATE DATABASE "` + postgresName + `"`); err != nil {
		return fmt.Errorf("no PostgreSQL at %s: start one with 'pg_ctlcluster 15 main start', or set BACKSTAY_POSTGRES_URL: %w", postgresURL(), err)
	}
	postgresMade.Store(true)
	return nil
})

// Close drops what the cases have made on servers. Whoever has run cases calls it at the end, once.
func Close() error {
	if !postgresMade.Load() {
		return nil
	}
	return onPostgres(`DROP DATABASE IF EXISTS "` + postgresName + `" WITH (FORCE)`)
}

func onPostgres(query string) error {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, postgresURL())
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	_, err = conn.Exec(ctx, query)
	return err
}

var postgresSchemas atomic.Int64

// schema is an empty schema, dropped with the benchmark.
type schema struct {
	name string
	pool *pgxpool.Pool
	db   *sql.DB
}

func newSchema(b *testing.B) *schema {
	b.Helper()
	ctx := context.Background()
	must(b, postgresThere())
	cfg, err := pgxpool.ParseConfig(postgresURL())
	must(b, err)
	s := &schema{name: fmt.Sprintf("bench%d", postgresSchemas.Add(1))}
	cfg.ConnConfig.Database = postgresName
	cfg.ConnConfig.RuntimeParams["search_path"] = s.name
	cfg.MaxConns = 16
	s.pool, err = pgxpool.NewWithConfig(ctx, cfg)
	must(b, err)
	b.Cleanup(s.pool.Close)
	s.exec(b, "CREATE SCHEMA "+s.name)
	b.Cleanup(func() { s.exec(b, "DROP SCHEMA "+s.name+" CASCADE") })
	s.db = openDB(b, cfg.ConnConfig)
	return s
}

func (s *schema) exec(b *testing.B, query string) {
	b.Helper()
	_, err := s.pool.Exec(context.Background(), query)
	must(b, err)
}
