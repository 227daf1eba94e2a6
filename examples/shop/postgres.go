package main

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/backstay-go/backstay/retry"
)

const (
	connectTimeout = 10 * time.Second
	maxConns       = 5 // of each service, so that a server with the usual 100 has room for others
	processConns   = 4 // of each of the processes of a service
)

// A postgres is a server on which every service has a database of its own.
type postgres struct {
	config *pgx.ConnConfig // of a database that exists
	prefix string          // of the names of the shop's databases
	conns  int             // at most, to each of them
}

// checkPostgres refuses what no run could use. What it says does not repeat the address, which may hold a password.
func checkPostgres(address string) error {
	u, err := url.Parse(address)
	if err == nil && (u.Scheme == "postgres" || u.Scheme == "postgresql") {
		if _, err = pgx.ParseConfig(address); err == nil {
			return nil
		}
	}
	return errors.New("-db: it must be the URL of a PostgreSQL database, such as postgres://user@host:5432/postgres; without it the shop keeps SQLite files")
}

// openPostgres makes sure of the server. The databases are named after the data folder, so that a shop finds its own again.
func openPostgres(ctx context.Context, address, prefix string) (*postgres, error) {
	config, err := pgx.ParseConfig(address)
	if err != nil {
		return nil, checkPostgres(address)
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = connectTimeout
	}
	if _, set := config.RuntimeParams["synchronous_commit"]; !set {
		config.RuntimeParams["synchronous_commit"] = "off" // the same promise as durability makes
	}
	p := &postgres{config: config, prefix: strings.ReplaceAll(prefix, "-", "_"), conns: maxConns}
	return p, p.ask(ctx, func(*pgx.Conn) error { return nil })
}

// String is what a person may see of the address.
func (p *postgres) String() string {
	return fmt.Sprintf("the databases %s_… of PostgreSQL at %s:%d", p.prefix, p.config.Host, p.config.Port)
}

func (p *postgres) name(service string) string { return p.prefix + "_" + service }

// open opens a service's database, and creates it if it is not there.
func (p *postgres) open(ctx context.Context, service string) (*sql.DB, error) {
	if err := p.ask(ctx, func(conn *pgx.Conn) error { return p.create(ctx, conn, p.name(service)) }); err != nil {
		return nil, err
	}
	config := p.config.Copy()
	config.Database = p.name(service)
	db := sql.OpenDB(patientConnector{stdlib.GetConnector(*config)})
	db.SetMaxOpenConns(p.conns)
	db.SetMaxIdleConns(p.conns)
	return db, nil
}

func (p *postgres) create(ctx context.Context, conn *pgx.Conn, name string) error {
	var known bool
	if err := conn.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM pg_database WHERE datname = $1)`, name).Scan(&known); err != nil || known {
		return err
	}
	// The other template may be in use, and may not be UTF-8.
	_, err := conn.Exec(ctx, `CREATE DATABASE `+pgx.Identifier{name}.Sanitize()+` TEMPLATE template0 ENCODING 'UTF8'`)
	return err
}

// drop removes the shop's databases.
func (p *postgres) drop(ctx context.Context, services []string) error {
	return p.ask(ctx, func(conn *pgx.Conn) (err error) {
		for _, service := range services {
			_, dropErr := conn.Exec(ctx, `DROP DATABASE IF EXISTS `+pgx.Identifier{p.name(service)}.Sanitize()+` WITH (FORCE)`)
			err = errors.Join(err, dropErr)
		}
		return err
	})
}

// ask uses a connection to the database of the address. A server that is away or refuses is the caller's to mend.
func (p *postgres) ask(ctx context.Context, fn func(*pgx.Conn) error) error {
	var conn *pgx.Conn
	err := crowded.Do(ctx, func(ctx context.Context) (err error) {
		conn, err = pgx.ConnectConfig(ctx, p.config)
		return err
	})
	if err == nil {
		err = errors.Join(fn(conn), conn.Close(context.WithoutCancel(ctx)))
	}
	if err != nil && ctx.Err() == nil {
		return usageError{fmt.Errorf("-db: PostgreSQL at %s:%d as %s: %w: start the server, or give an address and a user that may create databases, or leave out -db",
			p.config.Host, p.config.Port, p.config.User, err)}
	}
	return err
}

// A patientConnector waits while the server has no connection to spare.
type patientConnector struct{ driver.Connector }

func (c patientConnector) Connect(ctx context.Context) (conn driver.Conn, err error) {
	err = crowded.Do(ctx, func(ctx context.Context) (err error) {
		conn, err = c.Connector.Connect(ctx)
		return err
	})
	return conn, err
}

// crowded tries again to connect, for about half a minute.
var crowded = retry.New(retry.Config{Name: "connection", MaxAttempts: 120, InitialInterval: 20 * time.Millisecond, MaxInterval: 500 * time.Millisecond},
	retry.WithRetryable(isCrowded))

func isCrowded(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pgErr.Code == "53300" // too_many_connections
}

// isBeaten recognises a transaction that the database has rolled back in favour of another: nothing of it happened.
func isBeaten(err error) bool {
	pgErr, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (pgErr.Code == "40001" || pgErr.Code == "40P01") // serialization_failure, deadlock_detected
}
