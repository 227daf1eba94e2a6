package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/sqloutbox"
	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/pubsub/mempubsub"
)

// postgresURL is the server to test with.
func postgresURL(t *testing.T) string {
	t.Helper()
	address := "postgres://postgres@127.0.0.1:5432/postgres"
	if set := os.Getenv("BACKSTAY_POSTGRES_URL"); set != "" {
		address = set
	}
	conn, err := pgx.Connect(t.Context(), address)
	if err == nil {
		require.NoError(t, conn.Close(context.WithoutCancel(t.Context())))
		return address
	}
	text := "no PostgreSQL: start it with 'pg_ctlcluster 15 main start', or set BACKSTAY_POSTGRES_URL"
	require.NotEqual(t, "1", os.Getenv("BACKSTAY_REQUIRE_SERVICES"), text)
	fmt.Fprintf(os.Stderr, "shop: %s skipped: %s\n", t.Name(), text)
	t.Skip(text)
	return ""
}

// serverFor is the shop's server for that data folder; what the shop keeps there goes with the test.
func serverFor(t *testing.T, dir string) (*postgres, string) {
	t.Helper()
	address := postgresURL(t)
	s := &shop{cfg: settings{data: dir}}
	server, err := openPostgres(t.Context(), address, s.prefix())
	require.NoError(t, err)
	var names []string
	for _, d := range s.services() {
		names = append(names, d.name)
	}
	t.Cleanup(func() { require.NoError(t, server.drop(context.WithoutCancel(t.Context()), names)) })
	return server, address
}

// shopDatabases are the names of all databases of shops.
func shopDatabases(t *testing.T, address string) (names []string) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context()) // a cleanup asks too
	conn, err := pgx.Connect(ctx, address)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(ctx)) }()
	rows, err := conn.Query(ctx, `SELECT datname::text FROM pg_database WHERE starts_with(datname, 'shop_')`)
	require.NoError(t, err)
	names, err = pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return names
}

func TestARunOnPostgreSQLHolds(t *testing.T) {
	address := postgresURL(t)
	var stdout, stderr bytes.Buffer
	require.Zero(t, run(t.Context(), []string{"-db", address, "-orders", "60", "-rate", "20", "-json"}, &stdout, &stderr), "%s%s", &stdout, &stderr)
	requireProof(t, resultIn(t, &stdout, &stderr))
	_, name, told := strings.Cut(stderr.String(), "the databases ")
	require.True(t, told, stderr.String())
	name, _, _ = strings.Cut(name, "_…")
	require.True(t, strings.HasPrefix(name, "shop_"), name)
	for _, left := range shopDatabases(t, address) {
		require.False(t, strings.HasPrefix(left, name), "%s is left", left)
	}
}

func TestAServerOfDatabasesThatIsAwayIsStatus2AndKeepsThePassword(t *testing.T) {
	for name, c := range map[string]struct{ address, says string }{
		"away":           {"postgres://u:hunter2@127.0.0.1:1/postgres", "start the server"},
		"in the query":   {"postgres://u@127.0.0.1:1/postgres?password=hunter2", "127.0.0.1:1 as u"},
		"no URL":         {"host=127.0.0.1 password=hunter2", "it must be the URL"},
		"other database": {"mysql://u:hunter2@127.0.0.1:3306/x", "it must be the URL"},
		"a bad port":     {"postgres://u:hunter2@127.0.0.1:x/postgres", "it must be the URL"},
		"a bad option":   {"postgres://u:hunter2@127.0.0.1/postgres?sslmode=hunter2", "it must be the URL"},
		"nothing":        {"", "it must be the URL"},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			require.Equal(t, 2, run(t.Context(), []string{"-db", c.address, "-orders", "1"}, &stdout, &stderr))
			require.Contains(t, stderr.String(), "-db: ")
			require.Contains(t, stderr.String(), c.says)
			require.NotContains(t, stderr.String(), "hunter2")
			require.Empty(t, stdout.String())
		})
	}
}

// postgresLedger is testLedger on PostgreSQL.
func postgresLedger(t *testing.T, topic, schema string) ledger {
	t.Helper()
	server, _ := serverFor(t, t.TempDir())
	db, err := server.open(t.Context(), topic)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	_, err = db.ExecContext(t.Context(), schema)
	require.NoError(t, err)
	store, err := sqloutbox.New(db, sqloutbox.PostgreSQL(), sqloutbox.Config{})
	require.NoError(t, err)
	require.NoError(t, store.Migrate(t.Context()))
	bus := pubsub.New(mempubsub.New(mempubsub.Config{}))
	t.Cleanup(func() { require.NoError(t, bus.Close()) })
	return newLedger(db, onPostgreSQL, topic, store, outbox.NewRelay(store, bus, outbox.RelayConfig{}))
}

// Many orders at once want the same few products, in different sequence, and take them back.
func TestPostgreSQLSellsNoUnitTwice(t *testing.T) {
	const stock, orders = 20, 60
	i := &inventory{ledger: postgresLedger(t, topicInventory, inventorySchema), stocktaking: newAbsence(1, false)}
	require.NoError(t, i.stockProducts(t.Context(), []product{{SKU: "cup", Stock: stock}, {SKU: "mug", Stock: stock}, {SKU: "pot", Stock: stock}}))
	h := i.handler()
	sequences := []string{`["cup","mug","pot"]`, `["pot","mug","cup"]`, `["mug","pot","cup"]`}
	codes := make([]int, orders)
	var all sync.WaitGroup
	for n := range orders {
		all.Go(func() {
			var skus []string
			_ = json.Unmarshal([]byte(sequences[n%len(sequences)]), &skus)
			var lines []line
			for _, sku := range skus {
				lines = append(lines, line{SKU: sku, Qty: 1})
			}
			body, _ := json.Marshal(lineList{lines})
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPut, fmt.Sprintf("/reservations/o-%d", n), bytes.NewReader(body)))
			codes[n] = w.Code
		})
	}
	all.Wait()
	reserved := 0
	for _, code := range codes {
		if code == http.StatusOK {
			reserved++
		} else {
			require.Equal(t, http.StatusConflict, code)
		}
	}
	require.Equal(t, stock, reserved)
	require.Zero(t, count(t, i.db, `SELECT sum(stock_left) FROM products`))
	for n := range orders {
		all.Go(func() {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodDelete, fmt.Sprintf("/reservations/o-%d", n), http.NoBody))
			codes[n] = w.Code
		})
	}
	all.Wait()
	for _, code := range codes {
		require.Equal(t, http.StatusOK, code)
	}
	require.Equal(t, 3*stock, count(t, i.db, `SELECT sum(stock_left) FROM products`))
}

// Two transactions that take two rows crosswise: the server ends one of them, and it is run again.
func TestATransactionThatWasBeatenIsRunAgain(t *testing.T) {
	l := postgresLedger(t, topicPayments, paymentsSchema)
	_, err := l.db.ExecContext(t.Context(), `INSERT INTO payments VALUES ('a', 'pending', 0), ('b', 'pending', 0)`)
	require.NoError(t, err)
	var met, all sync.WaitGroup
	met.Add(2)
	runs, errs := make([]int, 2), make([]error, 2)
	for n, rows := range [][]string{{"a", "b"}, {"b", "a"}} {
		all.Go(func() {
			errs[n] = l.change(t.Context(), fmt.Sprint(n), func(tx *sql.Tx) error {
				for at, id := range rows {
					if _, err := tx.ExecContext(t.Context(), `UPDATE payments SET amount_pence = amount_pence + 1 WHERE order_id = $1`, id); err != nil {
						return err
					}
					if at == 0 && runs[n] == 0 {
						runs[n]++
						met.Done()
						met.Wait()
					} else if at == 0 {
						runs[n]++
					}
				}
				return nil
			})
		})
	}
	all.Wait()
	require.NoError(t, errs[0])
	require.NoError(t, errs[1])
	require.Equal(t, 3, runs[0]+runs[1])
	require.Equal(t, 4, count(t, l.db, `SELECT sum(amount_pence) FROM payments`))
	require.False(t, isBeaten(&pgconn.PgError{Code: "23505"}), "a duplicate stays one")
}

// What looks first and writes afterwards loses nothing, since an order is changed by one transaction at a time.
func TestChangesOfOneOrderTakeTurnsOnPostgreSQL(t *testing.T) {
	const changes = 40
	l := postgresLedger(t, topicPayments, paymentsSchema)
	_, err := l.db.ExecContext(t.Context(), `INSERT INTO payments VALUES ('a', 'pending', 0)`)
	require.NoError(t, err)
	var all sync.WaitGroup
	errs := make(chan error, changes)
	for range changes {
		all.Go(func() {
			errs <- l.change(t.Context(), "a", func(tx *sql.Tx) error {
				var pence int
				if err := tx.QueryRowContext(t.Context(), `SELECT amount_pence FROM payments WHERE order_id = 'a'`).Scan(&pence); err != nil {
					return err
				}
				_, err := tx.ExecContext(t.Context(), `UPDATE payments SET amount_pence = $1 WHERE order_id = 'a'`, pence+1)
				return err
			})
		})
	}
	all.Wait()
	for range changes {
		require.NoError(t, <-errs)
	}
	require.Equal(t, changes, count(t, l.db, `SELECT amount_pence FROM payments`))
}

// A user who may have one connection has it: the next one waits until it is free.
func TestAServerWithoutAConnectionToSpareIsWaitedFor(t *testing.T) {
	server, address := serverFor(t, t.TempDir())
	role := strings.Replace(server.name("guest"), "shop_", "bstest_", 1)
	admin, err := pgx.Connect(t.Context(), address)
	require.NoError(t, err)
	_, err = admin.Exec(t.Context(), `CREATE ROLE `+role+` LOGIN CONNECTION LIMIT 1`)
	require.NoError(t, err)
	t.Cleanup(func() {
		_, err := admin.Exec(context.WithoutCancel(t.Context()), `DROP ROLE `+role)
		require.NoError(t, err)
		require.NoError(t, admin.Close(context.WithoutCancel(t.Context())))
	})
	config := server.config.Copy()
	config.User = role
	connector := patientConnector{stdlib.GetConnector(*config)}
	first, err := connector.Connect(t.Context())
	require.NoError(t, err)
	before := crowded.Stats().Retries
	second := make(chan error, 1)
	go func() {
		conn, err := connector.Connect(t.Context())
		if err == nil {
			err = conn.Close()
		}
		second <- err
	}()
	require.Eventually(t, func() bool { return crowded.Stats().Retries > before || len(second) > 0 }, wait, tick)
	require.NoError(t, first.Close())
	require.NoError(t, <-second)
}

// Worse than in a file: what the dead shop had sent to the server is still under way there when the next one starts.
func TestAShopKilledOnPostgreSQLLosesNothing(t *testing.T) {
	kills, orders := 1, 80
	if os.Getenv("BACKSTAY_LONG") == "1" {
		kills, orders = 30, 2000
	}
	requireSurvival(t, kills, orders, func(t *testing.T) keptShop {
		dir := t.TempDir()
		server, address := serverFor(t, dir)
		db, err := server.open(t.Context(), topicOrders)
		require.NoError(t, err)
		t.Cleanup(func() {
			require.NoError(t, db.Close())
			kept := shopDatabases(t, address)
			for _, d := range (&shop{}).services() {
				require.Contains(t, kept, server.name(d.name))
			}
		})
		return keptShop{
			args: []string{"-data", dir, "-db", address},
			count: func(query string) (n int) {
				if err := db.QueryRowContext(t.Context(), query).Scan(&n); err != nil {
					return 0 // there is no such table yet
				}
				return n
			},
		}
	})
}
