package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"modernc.org/sqlite"
)

// busyTimeout bounds the wait for another writer where the caller's context does not end it sooner.
const busyTimeout = 30 * time.Second

// Config says how a file is opened. It is plain comparable data; the zero value is the durable default. Changing it means
// opening the file again.
type Config struct {
	// Synchronous is "full" (also when empty: every commit is flushed to disk before it returns) or "normal" (commits are
	// flushed at checkpoints only: several times faster, and a loss of power may undo the last of them).
	Synchronous string `json:"synchronous"`
	// MaxConns bounds the open connections. Zero means 8; a negative number is refused. One connection is refused too: code
	// that queries the database while it holds a transaction would wait for itself.
	MaxConns int `json:"max_conns"`
}

// Validate reports every fault of c, naming field and value.
func (c Config) Validate() error {
	var faults []error
	if s := c.withDefaults().Synchronous; s != "full" && s != "normal" {
		faults = append(faults, fmt.Errorf(`sqlite: Config.Synchronous is %q: it must be "full" or "normal"`, c.Synchronous))
	}
	if c.MaxConns < 0 || c.MaxConns == 1 {
		faults = append(faults, fmt.Errorf("sqlite: Config.MaxConns is %d: it must be 0 (default) or at least 2", c.MaxConns))
	}
	return errors.Join(faults...)
}

func (c Config) withDefaults() Config {
	if c.Synchronous == "" {
		c.Synchronous = "full"
	}
	if c.MaxConns == 0 {
		c.MaxConns = 8
	}
	return c
}

// Open opens the SQLite file at path, creating it when its directory exists, in write-ahead-log mode. The path is taken as it
// is: characters such as ?, # and % have no meaning in it. An in-memory database is refused, since every connection would
// have one of its own. The result is safe for concurrent use and the caller closes it. Open returns once a connection stands
// and waits while another process converts the same file, at most 30 seconds.
func Open(path string, cfg Config) (*sql.DB, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	file, err := resolve(path)
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector{driver: &sqlite.Driver{}, dsn: dsn(file, cfg)})
	// A closed connection costs a checkpoint when it is the last one, so idle connections are kept.
	db.SetMaxOpenConns(cfg.MaxConns)
	db.SetMaxIdleConns(cfg.MaxConns)
	if err := db.PingContext(context.Background()); err != nil {
		return nil, errors.Join(fmt.Errorf("sqlite: open %q: %w", path, err), db.Close())
	}
	return db, nil
}

// resolve is the absolute form of path, or an error that says what is wrong with it.
func resolve(path string) (string, error) {
	switch {
	case path == "":
		return "", errors.New("sqlite: the path is empty")
	case path == ":memory:" || strings.HasPrefix(path, "file:"):
		return "", fmt.Errorf("sqlite: %q is not a path: give a file; an in-memory database cannot be shared between connections", path)
	case strings.ContainsRune(path, 0):
		return "", fmt.Errorf("sqlite: the path %q contains a zero byte", path)
	}
	file, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("sqlite: open %q: %w", path, err)
	}
	switch info, err := os.Stat(filepath.Dir(file)); {
	case err != nil:
		return "", fmt.Errorf("sqlite: open %q: its directory: %w", path, err)
	case !info.IsDir():
		return "", fmt.Errorf("sqlite: open %q: %s is not a directory", path, filepath.Dir(file))
	}
	if info, err := os.Stat(file); err == nil && info.IsDir() {
		return "", fmt.Errorf("sqlite: open %q: it is a directory", path)
	}
	return file, nil
}

// dsn is the driver's name for file. The busy timeout applies before the switch to the write-ahead log, which needs a lock.
func dsn(file string, cfg Config) string {
	file = filepath.ToSlash(file)
	if !strings.HasPrefix(file, "/") {
		file = "/" + file // a drive letter
	}
	name := url.URL{Scheme: "file", Path: file}
	name.RawQuery = url.Values{
		"_busy_timeout": {strconv.FormatInt(busyTimeout.Milliseconds(), 10)},
		"_journal_mode": {"WAL"},
		"_synchronous":  {cfg.Synchronous},
		"_foreign_keys": {"1"},
		"_txlock":       {"immediate"},
	}.Encode()
	return name.String()
}
