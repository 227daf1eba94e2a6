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
	return &conn{driverConn: full, patience: busyTimeout}, nil
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

// conn sets the engine's wait for a lock only when it has to be another one: a statement for it has to be parsed, and takes as long as a
// step of a small transaction.
type conn struct {
	driverConn
	patience time.Duration // the engine's wait
	inTx     bool          // what is in a transaction needs none
}

// BeginTx waits for the write lock in short turns, between which it looks at ctx.
func (c *conn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	begin, wait := c.beginInTurns, turn
	if opts.ReadOnly {
		begin, wait = c.driverConn.BeginTx, busyTimeout
	}
	if err := c.wait(wait); err != nil {
		return nil, err
	}
	begun, err := begin(ctx, opts)
	if err != nil {
		return nil, err
	}
	c.inTx = true
	return tx{begun, c}, nil
}

func (c *conn) beginInTurns(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	for begun := time.Now(); ; {
		tx, err := c.driverConn.BeginTx(ctx, opts)
		if err == nil || !isBusy(err) || time.Since(begun) >= busyTimeout {
			return tx, err
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
}

// ExecContext implements driver.ExecerContext.
func (c *conn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if err := c.alone(); err != nil {
		return nil, err
	}
	return c.driverConn.ExecContext(ctx, query, args)
}

// QueryContext implements driver.QueryerContext.
func (c *conn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if err := c.alone(); err != nil {
		return nil, err
	}
	return c.driverConn.QueryContext(ctx, query, args)
}

// PrepareContext implements driver.ConnPrepareContext.
func (c *conn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	if err := c.alone(); err != nil {
		return nil, err
	}
	prepared, err := c.driverConn.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	full, ok := prepared.(driverStmt)
	if !ok {
		return nil, errors.Join(fmt.Errorf("sqlite: the driver's statement is a %T, which lacks a method", prepared), prepared.Close())
	}
	return stmt{full, c}, nil
}

// alone has a statement outside of a transaction wait as long as it may take.
func (c *conn) alone() error {
	if c.inTx {
		return nil
	}
	return c.wait(busyTimeout)
}

// wait is not bounded by the caller's context: it does not block, and a connection must not keep a wrong setting.
func (c *conn) wait(d time.Duration) error {
	if c.patience == d {
		return nil
	}
	_, err := c.driverConn.ExecContext(context.Background(), fmt.Sprintf("PRAGMA busy_timeout = %d", d.Milliseconds()), nil)
	if err == nil {
		c.patience = d
	}
	return err
}

// driverStmt is what the driver's statements can do.
type driverStmt interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
}

type stmt struct {
	driverStmt
	c *conn
}

// ExecContext implements driver.StmtExecContext.
func (s stmt) ExecContext(ctx context.Context, args []driver.NamedValue) (driver.Result, error) {
	if err := s.c.alone(); err != nil {
		return nil, err
	}
	return s.driverStmt.ExecContext(ctx, args)
}

// QueryContext implements driver.StmtQueryContext.
func (s stmt) QueryContext(ctx context.Context, args []driver.NamedValue) (driver.Rows, error) {
	if err := s.c.alone(); err != nil {
		return nil, err
	}
	return s.driverStmt.QueryContext(ctx, args)
}

// tx is over when the driver says so, whatever it says: it leaves no transaction behind.
type tx struct {
	driver.Tx
	c *conn
}

// Commit implements driver.Tx.
func (t tx) Commit() error {
	t.c.inTx = false
	return t.Tx.Commit()
}

// Rollback implements driver.Tx.
func (t tx) Rollback() error {
	t.c.inTx = false
	return t.Tx.Rollback()
}

func isBusy(err error) bool {
	failed, ok := errors.AsType[*sqlite.Error](err)
	return ok && failed.Code()&0xff == codeBusy
}
