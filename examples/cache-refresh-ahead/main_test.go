package main

import (
	"bytes"
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/backstay-go/backstay/cache"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Time is virtual here, so that the story does not depend on how busy the machine is.
func TestTheStory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		start := time.Now()
		require.NoError(t, run(t.Context(), &out), &out)
		require.Less(t, time.Since(start), 2*time.Second)
		require.Regexp(t, `^the new price after \d+ reads: 1 waited, 1 refreshed in the background, 2 queries
without the table: 20 stale answers, no error, [1-7] queries
the table is back: the new price is there
$`, out.String())
	})
}

func TestAStoryThatIsNotTrueIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		same := func(context.Context, string) (int, error) { return 250, nil }
		prices := cache.New(same, cache.Config{})
		defer func() { require.NoError(t, prices.Close()) }()
		s := &story{prices: prices}
		_, err := s.readUntil(t.Context(), func(r cache.Result[int]) bool { return r.Stale })
		require.ErrorIs(t, err, context.DeadlineExceeded)
	})
}
