package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/backstay-go/backstay/backend/sqlite"
	"github.com/backstay-go/backstay/cache"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Time is virtual here: were a lease not released, the next reader would wait for it to lapse.
func TestTheStory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		start := time.Now()
		require.NoError(t, run(t.Context(), &out), &out)
		require.Less(t, time.Since(start), time.Second)
		require.Equal(t, 7, strings.Count(out.String(), "\n"))
		require.Regexp(t, `(?m)^after a reader who came too late +£3\.00 +queries: 1$`, out.String())
	})
}

func TestAStoryThatIsNotTrueIsAnError(t *testing.T) {
	db, err := sqlite.Open(filepath.Join(t.TempDir(), "empty.db"), sqlite.Config{})
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	prices := cache.NewAside[string, int](cache.Config{})
	defer func() { require.NoError(t, prices.Close()) }()
	s := &shop{out: new(bytes.Buffer), db: db, prices: prices}
	s.ask(t.Context(), "now", "failure", 1)
	require.NoError(t, s.wrong)
	s.ask(t.Context(), "now", "£2.50", 0)
	require.ErrorContains(t, s.wrong, "now: failure and 1 queries, want £2.50 and 0")
}
