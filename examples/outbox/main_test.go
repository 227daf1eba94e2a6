package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"sort"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTheStory(t *testing.T) {
	for _, dsn := range []string{"", "postgres://postgres@127.0.0.1:5432/postgres"} {
		t.Run(strings.SplitN(dsn, ":", 2)[0], func(t *testing.T) {
			if dsn != "" {
				requirePostgreSQL(t, dsn)
			}
			var out bytes.Buffer
			require.NoError(t, run(t.Context(), &out, dsn), &out)
			placed, rest, found := strings.Cut(out.String(), "billed")
			require.True(t, found, &out)
			require.Equal(t, "tea: placed\nmug: placed\nyacht: too dear\njam: placed\n", placed)
			require.Equal(t, []string{"3 orders, 3 bills", "billed: jam", "billed: mug", "billed: tea", "parked: mug: no mugs before noon", "requeued: 1"},
				sorted("billed"+rest))
		})
	}
}

func requirePostgreSQL(t *testing.T, dsn string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err == nil {
		require.NoError(t, conn.Close(context.WithoutCancel(t.Context())))
		return
	}
	text := fmt.Sprintf("no PostgreSQL at %s: start it with: service postgresql start", dsn)
	require.NotEqual(t, "1", os.Getenv("BACKSTAY_REQUIRE_SERVICES"), text)
	fmt.Fprintf(os.Stderr, "outbox: %s skipped: %s\n", t.Name(), text)
	t.Skip(text)
}

func sorted(lines string) []string {
	split := strings.Split(strings.TrimSpace(lines), "\n")
	sort.Strings(split)
	return split
}
