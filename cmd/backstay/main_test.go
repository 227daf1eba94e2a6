package main

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/backstay-go/backstay/backend/mysql/mysqloutbox"
	"github.com/backstay-go/backstay/backend/sqlite"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/sqloutbox"
	"github.com/backstay-go/backstay/pubsub"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing")

// processEnv makes the test binary the command itself.
const processEnv = "BACKSTAY_TEST_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(processEnv) == "1" {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

// As a process of its own, without a terminal, the command refuses to destroy, and its exit code says so.
func TestProcess(t *testing.T) {
	d := sqliteDatabase(t)
	d.seed(t)
	run := func(stdin io.Reader, args ...string) (code int, out string) {
		cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
		cmd.Env = append(os.Environ(), processEnv+"=1", envDB+"="+d.url)
		cmd.Stdin = stdin // nil is /dev/null
		text, err := cmd.CombinedOutput()
		var failed *exec.ExitError
		if err != nil {
			require.ErrorAs(t, err, &failed)
		}
		return cmd.ProcessState.ExitCode(), string(text)
	}
	for _, stdin := range []io.Reader{nil, strings.NewReader("yes\n")} {
		code, out := run(stdin, "outbox", "skip", "-all")
		require.Equal(t, codeNotConfirmed, code, out)
		require.Contains(t, out, "nothing was done")
	}
	code, out := run(nil, "outbox", "list")
	require.Zero(t, code)
	require.Contains(t, out, "order-7")
	code, out = run(nil, "outbox", "what")
	require.Equal(t, codeUsage, code, out)
	code, out = run(nil, "outbox", "skip", "-all", "-yes")
	require.Zero(t, code, out)
	require.Equal(t, "3 messages skipped\n", out)
	code, out = run(nil, "version")
	require.Zero(t, code)
	require.Contains(t, out, "backstay ")
}

// database is an outbox to look at, and its URL.
type database struct {
	url   string
	db    *sql.DB
	store *sqloutbox.Store
}

func sqliteDatabase(t *testing.T) database {
	t.Helper()
	path := filepath.Join(t.TempDir(), "shop.db")
	db, err := sqlite.Open(path, sqlite.Config{})
	require.NoError(t, err)
	return migrated(t, "sqlite:"+path, db, sqloutbox.SQLite())
}

func mysqlDatabase(t *testing.T) database {
	t.Helper()
	server := os.Getenv("BACKSTAY_MYSQL_URL")
	if server == "" {
		server = "mysql://root@127.0.0.1:3306/"
	}
	url := temporary(t, "MariaDB", server, "mysql", openMySQL)
	db, err := mysqloutbox.Open(t.Context(), url, mysqloutbox.Config{})
	require.NoError(t, err)
	return migrated(t, url, db, sqloutbox.MySQL())
}

func postgresDatabase(t *testing.T) database {
	t.Helper()
	server := os.Getenv("BACKSTAY_POSTGRES_URL")
	if server == "" {
		server = "postgres://postgres@127.0.0.1:5432/"
	}
	url := temporary(t, "PostgreSQL", server, "postgres", openPostgreSQL)
	db, err := openPostgreSQL(t.Context(), url)
	require.NoError(t, err)
	return migrated(t, url, db, sqloutbox.PostgreSQL())
}

// temporary makes a database on a server, dropped at the end of the test.
func temporary(t *testing.T, kind, server, admin string, open func(context.Context, string) (*sql.DB, error)) string {
	t.Helper()
	db, err := open(t.Context(), server+admin)
	if err != nil {
		text := fmt.Sprintf("no %s at %s (%v): start it with: service %s start", kind, server, err, strings.ToLower(kind))
		if os.Getenv("BACKSTAY_REQUIRE_SERVICES") == "1" {
			t.Fatal(text)
		}
		fmt.Fprintf(os.Stderr, "backstay: %s skipped: %s\n", t.Name(), text)
		t.Skip(text)
	}
	name := fmt.Sprintf("bstest_%d_%d", os.Getpid(), time.Now().UnixNano())
	_, err = db.ExecContext(t.Context(), "CREATE DATABASE "+name)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		_, err := db.ExecContext(ctx, "DROP DATABASE "+name)
		require.NoError(t, errors.Join(err, db.Close()))
	})
	return server + name
}

func migrated(t *testing.T, url string, db *sql.DB, dialect sqloutbox.Dialect) database {
	t.Helper()
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	s, err := sqloutbox.New(db, dialect, sqloutbox.Config{})
	require.NoError(t, err)
	require.NoError(t, s.Migrate(t.Context()))
	return database{url, db, s}
}

// park stores the messages and gives each of them up.
func (d database) park(t *testing.T, reason string, msgs ...pubsub.Message) {
	t.Helper()
	ctx := t.Context()
	ob := outbox.New(d.store, outbox.Config{})
	require.NoError(t, ob.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error { return ob.Publish(ctx, tx, msgs...) }))
	l, err := d.store.Lease(ctx, "test", time.Hour)
	require.NoError(t, err)
	records, err := d.store.Fetch(ctx, l, len(msgs))
	require.NoError(t, err)
	require.Len(t, records, len(msgs))
	failures := make([]outbox.Failure, len(records))
	for i, r := range records {
		r.Attempts = 10
		failures[i] = outbox.Failure{Record: r, Err: errors.New(reason), Parked: true}
	}
	require.NoError(t, d.store.Settle(ctx, l, nil, failures))
}

// seed is what the golden files show: a plain message, one that would play tricks on a terminal, and one that is not text.
func (d database) seed(t *testing.T) {
	t.Helper()
	sent := time.Date(2026, 5, 4, 12, 30, 0, 0, time.UTC)
	d.park(t, "the broker has no topic orders.plcaed",
		pubsub.Message{ID: "a1", Topic: "orders.plcaed", Key: "order-7", Time: sent, Header: pubsub.Header{"traceparent": "00-1-2-01", "shop": "Zürich"},
			Payload: []byte("{\n  \"order\": 7,\n  \"note\": \"für Ändrea\"\n}")},
		pubsub.Message{ID: "b\x1b[2J\u202e2", Topic: "orders.placed", Key: "key\nSEQ  PARKED", Time: sent,
			Payload: []byte("first\r\n\x1b]0;owned\x07 \u009b31m \u200b\\n" + strings.Repeat("long ", 2000))},
		pubsub.Message{ID: "c3", Topic: "orders.placed", Key: strings.Repeat("a long key ", 10), Time: sent, Payload: []byte{0, 1, 0xff, 'a', 0x1b}})
}

// session runs commands and writes down what happens, without what differs from run to run.
type session struct {
	t   *testing.T
	url string
	log bytes.Buffer
}

var moments = regexp.MustCompile(`20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`)

// run runs a command line, with a person who answers where answer is not empty.
func (s *session) run(answer string, args ...string) (code int) {
	s.t.Helper()
	var out, errs bytes.Buffer
	c := console{in: bufio.NewReader(strings.NewReader(answer)), out: &out, err: &errs, asks: answer != "",
		getenv: func(name string) string {
			if name == envDB {
				return s.url
			}
			return ""
		}}
	code = c.run(s.t.Context(), args)
	fmt.Fprintf(&s.log, "$ backstay %s\n", safe(strings.Join(args, " "), 500))
	s.log.Write(out.Bytes())
	if errs.Len() > 0 {
		fmt.Fprintf(&s.log, "-- on the standard error:\n%s", errs.Bytes())
		if answer != "" {
			fmt.Fprintf(&s.log, "[%s]\n", strings.TrimSpace(answer))
		}
	}
	fmt.Fprintf(&s.log, "-- exit code %d\n\n", code)
	return code
}

// golden compares with, or writes, a file.
func (s *session) golden(name string) {
	s.t.Helper()
	got := moments.ReplaceAllStringFunc(s.log.String(), func(m string) string {
		if strings.HasPrefix(m, "2026-05-04") {
			return m // when it was sent
		}
		return "2026-01-01T00:00:00Z"
	})
	path := filepath.Join(home, "testdata", name)
	if *update {
		require.NoError(s.t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(s.t, os.WriteFile(path, []byte(got), 0o644))
		return
	}
	want, err := os.ReadFile(path)
	require.NoError(s.t, err)
	require.Equal(s.t, string(want), got)
}

// onEach runs a test on every engine: all must give the same output.
func onEach(t *testing.T, test func(t *testing.T, d database)) {
	t.Helper()
	for _, e := range []struct {
		name string
		make func(*testing.T) database
	}{{"sqlite", sqliteDatabase}, {"mysql", mysqlDatabase}, {"postgres", postgresDatabase}} {
		t.Run(e.name, func(t *testing.T) { test(t, e.make(t)) })
	}
}

func TestLooking(t *testing.T) {
	onEach(t, func(t *testing.T, d database) {
		s := &session{t: t, url: d.url}
		s.run("", "outbox", "list")
		s.run("", "outbox", "list", "-json")
		s.run("", "outbox", "stats")
		s.run("", "outbox", "stats", "-json")
		d.seed(t)
		s.run("", "outbox", "list")
		s.run("", "outbox", "list", "-limit", "2")
		s.run("", "outbox", "list", "-after", "2", "-json")
		s.run("", "outbox", "show", "1")
		s.run("", "outbox", "show", "-bytes", "80", "2")
		s.run("", "outbox", "show", "3")
		s.run("", "outbox", "show", "3", "-json")
		s.run("", "outbox", "show", "-payload", "1")
		s.run("", "outbox", "show", "4")
		for _, c := range s.log.Bytes() {
			require.True(t, c == '\n' || c >= 0x20 && c != 0x7f, "a control character reaches the terminal")
		}
		require.NotContains(t, s.log.String(), "\u009b")
		require.NotContains(t, s.log.String(), "\u202e")
		s.golden("looking.golden")
	})
}

func TestRepairing(t *testing.T) {
	onEach(t, func(t *testing.T, d database) {
		s := &session{t: t, url: d.url}
		d.seed(t)
		file := filepath.Join(t.TempDir(), "payload")
		require.NoError(t, os.WriteFile(file, []byte("repaired"), 0o600))
		t.Chdir(filepath.Dir(file))
		s.run("", "outbox", "skip", "2")
		s.run("no\n", "outbox", "skip", "2", "3")
		s.run("yes\n", "outbox", "skip", "2", "9")
		s.run("", "outbox", "edit", "1", "-topic", "orders.placed")
		s.run("yes\n", "outbox", "edit", "1", "-topic", "orders.placed", "-header", "shop=Genève", "-unset", "traceparent", "-payload-file", "payload")
		s.run("", "outbox", "edit", "-yes", "3", "-payload", "text", "-requeue", "-json")
		s.run("", "outbox", "edit", "-yes", "3", "-payload", "text")
		s.run("", "outbox", "list")
		s.run("", "outbox", "requeue", "1", "7")
		s.run("", "outbox", "requeue", "-all")
		s.run("", "outbox", "skip", "-all", "-yes", "-json")
		s.run("", "outbox", "stats", "-json")

		l, err := d.store.Lease(t.Context(), "test", time.Hour)
		require.NoError(t, err)
		records, err := d.store.Fetch(t.Context(), l, 10)
		require.NoError(t, err)
		require.Len(t, records, 2)
		first := records[0].Message
		require.Equal(t, "orders.placed", first.Topic)
		require.Equal(t, "order-7", first.Key)
		require.Equal(t, "a1", first.ID)
		require.Equal(t, "repaired", string(first.Payload))
		require.Equal(t, pubsub.Header{"shop": "Genève"}, first.Header)
		require.Equal(t, "text", string(records[1].Message.Payload))

		text := regexp.MustCompile(`"oldest_age_ms": \d+`).ReplaceAllString(s.log.String(), `"oldest_age_ms": 0`)
		s.log.Reset()
		s.log.WriteString(text)
		s.golden("repairing.golden")
	})
}

// home is where the tests begin.
var home, _ = os.Getwd()

// What is wrong with a command line is said before any database is asked.
func TestUsage(t *testing.T) {
	s := &session{t: t}
	for _, args := range [][]string{
		{}, {"help"}, {"what"}, {"outbox"}, {"outbox", "help"}, {"outbox", "what"}, {"outbox", "list"}, {"outbox", "list", "-h"},
		{"outbox", "list", "-db", "oracle:x"}, {"outbox", "list", "-db", "sqlite:x", "-prefix", "a-b"}, {"outbox", "list", "-db", "sqlite:x", "-wrong"},
		{"outbox", "show", "-db", "sqlite:x", "seven"}, {"outbox", "skip", "-db", "sqlite:x", "0"},
		{"outbox", "list", "-db", "sqlite:no/such/file.db"},
	} {
		s.run("", args...)
	}
	s.golden("usage.golden")
}

// What the variable holds, a password perhaps, is not repeated by the help.
func TestHelpKeepsTheSecret(t *testing.T) {
	s := &session{t: t, url: "mysql://root:secret@127.0.0.1:1/x"}
	require.Equal(t, codeDone, s.run("", "outbox", "list", "-h"))
	require.Equal(t, codeFailed, s.run("", "outbox", "list"))
	s.url = "postgres://root:secret@127.0.0.1:1/x"
	require.Equal(t, codeFailed, s.run("", "outbox", "list"))
	s.url = "postgres://root:secret@127.0.0.1:port/x"
	require.Equal(t, codeFailed, s.run("", "outbox", "list"))
	require.NotContains(t, s.log.String(), "secret")
}

// Errors that need a database say what to do, and are not taken for success.
func TestWrongUse(t *testing.T) {
	d := sqliteDatabase(t)
	d.seed(t)
	s := &session{t: t, url: d.url}
	for _, args := range [][]string{
		{"outbox", "list", "1"}, {"outbox", "show"}, {"outbox", "show", "1", "2"}, {"outbox", "skip", "-yes"}, {"outbox", "skip", "-all", "1", "-yes"},
		{"outbox", "edit", "1"}, {"outbox", "edit", "1", "-header", "x"}, {"outbox", "edit", "1", "-unset", "x"}, {"outbox", "edit", "1", "-topic", "a b"},
		{"outbox", "edit", "1", "-payload", "a", "-payload-file", "b"}, {"outbox", "edit", "1", "-payload-file", "-"},
		{"outbox", "list", "-timeout", "0"}, {"outbox", "requeue", "77"},
	} {
		s.run("", args...)
	}
	s.golden("wrong.golden")
	b, err := d.store.Backlog(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 3, b.Parked, "nothing was done")

	s.log.Reset()
	require.Equal(t, codeFailed, s.run("", "outbox", "list", "-prefix", "other_"))
	require.Contains(t, s.log.String(), `no complete outbox with the prefix "other_"`)
	require.Contains(t, s.log.String(), "-prefix")
}

// The payload itself is for files and pipes.
func TestPayloadIsNotSentToATerminal(t *testing.T) {
	d := sqliteDatabase(t)
	d.seed(t)
	var out, errs bytes.Buffer
	c := console{in: bufio.NewReader(strings.NewReader("")), out: &out, err: &errs, outIsTerminal: true, getenv: func(string) string { return d.url }}
	require.Equal(t, codeUsage, c.run(t.Context(), []string{"outbox", "show", "-payload", "2"}))
	require.Empty(t, out.String())
	c.outIsTerminal = false
	require.Equal(t, codeDone, c.run(t.Context(), []string{"outbox", "show", "-payload", "3"}))
	require.Equal(t, []byte{0, 1, 0xff, 'a', 0x1b}, out.Bytes())
}

// An interrupt is an answer to a question, and not yes.
func TestInterruptedConfirmation(t *testing.T) {
	d := sqliteDatabase(t)
	d.seed(t)
	ctx, cancel := context.WithCancel(t.Context())
	reader, writer := io.Pipe()
	defer func() { require.NoError(t, writer.Close()) }()
	asked := writerFunc(func(p []byte) (int, error) {
		if bytes.Contains(p, []byte("Type yes")) {
			cancel()
		}
		return len(p), nil
	})
	c := console{in: bufio.NewReader(reader), out: io.Discard, err: asked, asks: true, getenv: func(string) string { return d.url }}
	require.Equal(t, codeNotConfirmed, c.run(ctx, []string{"outbox", "skip", "-all"}))
	b, err := d.store.Backlog(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 3, b.Parked)
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// Many messages are repaired a page at a time.
func TestRepairingMany(t *testing.T) {
	onEach(t, func(t *testing.T, d database) {
		msgs := make([]pubsub.Message, 3*page+7)
		for i := range msgs {
			msgs[i] = pubsub.Message{Topic: "t", Key: fmt.Sprint(i)}
		}
		d.park(t, "refused", msgs...)
		s := &session{t: t, url: d.url}
		require.Zero(t, s.run("yes\n", "outbox", "skip", "-all"))
		require.Contains(t, s.log.String(), "and 587 more")
		require.Contains(t, s.log.String(), "607 messages skipped")
		b, err := d.store.Backlog(t.Context())
		require.NoError(t, err)
		require.Zero(t, b.Pending)
	})
}
