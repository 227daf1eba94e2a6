package pgoutbox_test

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/backstay-go/backstay/backend/postgres/pgoutbox"
	"github.com/backstay-go/backstay/outbox"
)

// A store takes a pool and fixes the transaction type as pgx.Tx. Nothing is asked of the database before Migrate or Verify.
func ExampleNew() {
	pool, err := pgxpool.New(context.Background(), "postgres://orders@127.0.0.1:5432/orders")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pool.Close()
	store, err := pgoutbox.New(pool, pgoutbox.Config{KeyLock: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	ob := outbox.New(store, outbox.Config{})
	fmt.Println(ob.Config().Name, store.Config().Prefix, store.Config().NotifyEvery)
	// Output: outbox backstay_ 1ms
}

// A configuration is read from a file with durations as text; unknown fields are refused.
func ExampleConfig() {
	var c pgoutbox.Config
	err := json.Unmarshal([]byte(`{"prefix": "orders_", "notify_every": "off", "rescan": "1m"}`), &c)
	fmt.Println(c.Prefix, c.NotifyEvery < 0, c.Rescan, err)
	// Output: orders_ true 1m0s <nil>
}

// All faults are reported at once.
func ExampleConfig_Validate() {
	fmt.Println(pgoutbox.Config{Prefix: "my-orders", ListenPing: 1}.Validate())
	// Output:
	// pgoutbox: Config.Prefix is "my-orders": it must be empty ("backstay_") or at most 32 letters, digits and underscores, not a digit first
	// pgoutbox: Config.ListenPing is 1ns: it must be 0 (10s) or at least 10ms
}
