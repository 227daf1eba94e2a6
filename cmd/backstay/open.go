package main

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/backstay-go/backstay/backend/mysql/mysqloutbox"
	"github.com/backstay-go/backstay/backend/sqlite"
	"github.com/backstay-go/backstay/outbox/sqloutbox"
	"github.com/backstay-go/backstay/saga/sqlsaga"
)

// engine is a kind of database, by the scheme of its URL.
type engine struct {
	schemes []string
	form    string
	dialect func() sqloutbox.Dialect
	sagas   func() sqlsaga.Dialect
	open    func(ctx context.Context, url string) (*sql.DB, error)
}

func engines() []engine {
	return []engine{
		{[]string{"sqlite"}, "sqlite:FILE", sqloutbox.SQLite, sqlsaga.SQLite, openSQLite},
		{[]string{"postgres", "postgresql"}, "postgres://USER:PASSWORD@HOST/DATABASE", sqloutbox.PostgreSQL, sqlsaga.PostgreSQL, openPostgreSQL},
		{[]string{"mysql"}, "mysql://USER:PASSWORD@HOST/DATABASE", sqloutbox.MySQL, sqlsaga.MySQL, openMySQL},
	}
}

// find is the engine of url.
func find(url string) (engine, error) {
	scheme, _, _ := strings.Cut(url, ":")
	var forms []string
	for _, e := range engines() {
		forms = append(forms, e.form)
		if slices.Contains(e.schemes, scheme) {
			return e, nil
		}
	}
	return engine{}, fmt.Errorf("the database must be given as %s", strings.Join(forms, " or "))
}

// openSQLite opens a file that is there: to make a new one would hide that its name is wrong.
func openSQLite(_ context.Context, url string) (*sql.DB, error) {
	path := strings.TrimPrefix(strings.TrimPrefix(url, "sqlite:"), "//")
	if _, err := os.Stat(path); err != nil {
		return nil, fmt.Errorf("%w: name an existing file, as in sqlite:/var/lib/shop/orders.db", err)
	}
	return sqlite.Open(path, sqlite.Config{})
}

func openPostgreSQL(ctx context.Context, url string) (*sql.DB, error) {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	db := stdlib.OpenDB(*cfg)
	if err := db.PingContext(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func openMySQL(ctx context.Context, url string) (*sql.DB, error) {
	return mysqloutbox.Open(ctx, url, mysqloutbox.Config{})
}

// openStore opens the outbox in a database, and checks that there is one.
func openStore(ctx context.Context, e engine, url, prefix string) (*sqloutbox.Store, *sql.DB, error) {
	db, err := e.open(ctx, url)
	if err != nil {
		return nil, nil, fmt.Errorf("the database cannot be opened: %w", err)
	}
	store, err := sqloutbox.New(db, e.dialect(), sqloutbox.Config{Prefix: prefix})
	if err == nil {
		err = store.Verify(ctx)
	}
	if err != nil {
		hint := fmt.Errorf("there is no complete outbox with the prefix %q in this database: name another with -prefix, or let the service, or a person, migrate it",
			cmp.Or(prefix, "backstay_"))
		return nil, nil, errors.Join(hint, err, db.Close())
	}
	return store, db, nil
}

// openSagas opens the sagas in a database, and checks that there are some.
func openSagas(ctx context.Context, e engine, url, prefix string) (*sqlsaga.Store, *sql.DB, error) {
	db, err := e.open(ctx, url)
	if err != nil {
		return nil, nil, fmt.Errorf("the database cannot be opened: %w", err)
	}
	store, err := sqlsaga.New(db, e.sagas(), sqlsaga.WithPrefix(prefix))
	if err == nil {
		err = store.Verify(ctx)
	}
	if err != nil {
		hint := fmt.Errorf("there are no complete saga tables with the prefix %q in this database: name another with -prefix, or let the service migrate them", prefix)
		return nil, nil, errors.Join(hint, err, db.Close())
	}
	return store, db, nil
}
