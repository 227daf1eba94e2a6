package pgsaga_test

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/backstay-go/backstay/backend/postgres/pgsaga"
	"github.com/backstay-go/backstay/saga"
)

// A store takes a pool. Nothing is asked of the database before Migrate or Verify.
func ExampleNew() {
	pool, err := pgxpool.New(context.Background(), "postgres://orders@127.0.0.1:5432/orders")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pool.Close()
	store, err := pgsaga.New(pool, pgsaga.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	type order struct{ Item string }
	place := saga.MustDefine("order", 1, saga.Step[order]{Name: "reserve", Do: func(context.Context, *order) error { return nil }})
	runner, err := saga.NewRunner(store, saga.Config{}, place) // go runner.Run(ctx); go store.Listen(ctx, runner.Notify)
	fmt.Println(runner.Config().Name, store.Config().Prefix, store.Config().ListenPing, err)
	// Output: saga backstay_ 10s <nil>
}

// A configuration is read from a file with durations as text; unknown fields are refused.
func ExampleConfig() {
	var c pgsaga.Config
	err := json.Unmarshal([]byte(`{"prefix": "orders_", "notify_every": "off", "listen_ping": "1m"}`), &c)
	fmt.Println(c.Prefix, c.NotifyEvery < 0, c.ListenPing, err)
	// Output: orders_ true 1m0s <nil>
}

// All faults are reported at once.
func ExampleConfig_Validate() {
	fmt.Println(pgsaga.Config{Prefix: "My-orders", ListenPing: 1}.Validate())
	// Output:
	// pgsaga: Config.Prefix is "My-orders": it must be empty ("backstay_") or at most 31 lower-case letters, digits and underscores, not a digit first
	// pgsaga: Config.ListenPing is 1ns: it must be 0 (10s) or at least 10ms
}
