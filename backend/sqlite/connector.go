package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"

	"modernc.org/sqlite"
)

// turn is how long SQLite polls for the write lock before BeginTx looks at its context again.
const turn = 50 * time.Millisecond

// pause is how long Connect leaves a file alone that is being converted.
const pause = 5 * time.Millisecond

const codeBusy = 5 // SQLITE_BUSY, in the low byte of an extended code

// connector opens connections whose BeginTx obeys its context: the engine's own wait for the write lock does not.
type connector struct {
	driver driver.Driver
	dsn    string
}

// Connect opens a connection. While another one converts the file to the write-ahead log, the engine does not wait but
// fails, since two that waited for each other would wait for ever: so it is tried again.
func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	opened, err := c.driver.Open(c.dsn)
	for begun := time.Now(); isBusy(err) && time.Since(begun) < busyTimeout; {
		select {
		case <-time.After(pause):
			opened, err = c.driver.Open(c.dsn)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if err != nil {
		return nil, err
	}
	full, ok := opened.(driverConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("sqlite: the driver's connection is a %T, which lacks a method", opened), opened.Close())
	}
	return conn{full}, nil
}

// Driver returns the driver of the engine.
func (c connector) Driver() driver.Driver { return c.driver }

// driverConn is what the driver's connections can do, for database/sql and for users of sql.Conn.Raw.
type driverConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.Pinger
	driver.SessionResetter
	driver.Validator
	NewBackup(dst string) (*sqlite.Backup, error)
	NewRestore(src string) (*sqlite.Backup, error)
	Serialize() ([]byte, error)
	Deserialize([]byte) error
}

type conn struct{ driverConn }

// BeginTx waits for the write lock in short turns, between which it looks at ctx.
func (c conn) BeginTx(ctx context.Context, opts driver.TxOptions) (tx driver.Tx, err error) {
	if opts.ReadOnly {
		return c.driverConn.BeginTx(ctx, opts)
	}
	if err := c.setBusyTimeout(turn); err != nil {
		return nil, err
	}
	defer func() {
		if restoreErr := c.setBusyTimeout(busyTimeout); restoreErr != nil && err == nil {
			tx, err = nil, errors.Join(restoreErr, tx.Rollback())
		}
	}()
	for begun := time.Now(); ; {
		tx, err = c.driverConn.BeginTx(ctx, opts)
		if err == nil || !isBusy(err) || time.Since(begun) >= busyTimeout {
			return tx, err
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
}

// setBusyTimeout is not bounded by the caller's context: it does not block, and a connection must not keep a wrong setting.
func (c conn) setBusyTimeout(d time.Duration) error {
	_, err := c.ExecContext(context.Background(), fmt.Sprintf("PRAGMA busy_timeout = %d", d.Milliseconds()), nil)
	return err
}

func isBusy(err error) bool {
	failed, ok := errors.AsType[*sqlite.Error](err)
	return ok && failed.Code()&0xff == codeBusy
}
