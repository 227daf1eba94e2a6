// Package pgtest gives tests a database of their own on the machine's PostgreSQL, and private servers that they may hurt.
package pgtest

import (
	"context"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Patience bounds the wait for a server, generously: a loaded machine is no failure.
const Patience = 60 * time.Second

var names atomic.Int64

// unavailable skips the test, or fails it with BACKSTAY_REQUIRE_SERVICES=1.
func unavailable(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("BACKSTAY_REQUIRE_SERVICES") == "1" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// Database makes a database on the shared server, found by BACKSTAY_POSTGRES_URL, and returns its URL. It is dropped with the
// test. The test is skipped when there is no server, or fails with BACKSTAY_REQUIRE_SERVICES=1.
func Database(t testing.TB) string {
	t.Helper()
	url := os.Getenv("BACKSTAY_POSTGRES_URL")
	if url == "" {
		url = "postgres://postgres@127.0.0.1:5432/postgres"
	}
	name := fmt.Sprintf("bstest-%d-%d", os.Getpid(), names.Add(1))
	if err := try(url, `CREATE DATABASE "`+name+`"`); err != nil {
		unavailable(t, "no PostgreSQL at %s (%v): start one with 'pg_ctlcluster 15 main start', or set BACKSTAY_POSTGRES_URL", url, err)
	}
	t.Cleanup(func() {
		if err := try(url, `DROP DATABASE IF EXISTS "`+name+`" WITH (FORCE)`); err != nil {
			t.Errorf("dropping %s: %v", name, err)
		}
	})
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	return URL(cfg.Host, cfg.Port, cfg.User, cfg.Password, name)
}

// Overlap has a few tests run beside each other even where there are not as many cores: they mostly wait, for leases to run out or for
// a disk. Whoever sets -parallel decides. TestMain calls it before anything else.
func Overlap() {
	flag.Parse()
	set := false
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == "test.parallel" })
	if !set && runtime.GOMAXPROCS(0) < overlap {
		_ = flag.Set("test.parallel", strconv.Itoa(overlap)) // the flag exists in every test
	}
}

// overlap is bounded by the connections of the shared server, of which a test takes up to twenty.
const overlap = 4

// Tables gives the stores of one test separate tables in a database that they share, made with the first: making and dropping a database
// for each takes longer than most of them need it for.
type Tables struct {
	url   string
	count int
}

// Next is the URL of the database, which ends with t, the test that the stores belong to, and the prefix of the next tables.
func (s *Tables) Next(t testing.TB) (url, prefix string) {
	t.Helper()
	if s.url == "" {
		s.url = Database(t)
	}
	s.count++
	return s.url, fmt.Sprintf("case%d_", s.count)
}

// URL is the URL of a database.
func URL(host string, port uint16, user, password, database string) string {
	if password != "" {
		user += ":" + password
	}
	return fmt.Sprintf("postgres://%s@%s:%d/%s?sslmode=disable", user, host, port, database)
}

func try(url, query string) error {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	_, err = conn.Exec(ctx, query)
	return err
}

// Pool opens a pool on url, closed with the test.
func Pool(t testing.TB, url string) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(context.Background(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}

// Eventually asks every few milliseconds until done, and fails the test after Patience.
func Eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	deadline := time.NewTimer(Patience)
	defer deadline.Stop()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for !done() {
		select {
		case <-ticker.C:
		case <-deadline.C:
			t.Fatalf("%s: not within %v", what, Patience)
		}
	}
}
