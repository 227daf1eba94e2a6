package timeout_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/backstay-go/backstay/timeout"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errBroken = errors.New("broken")

func hang(ctx context.Context) error {
	<-ctx.Done()
	return fmt.Errorf("reading the reply: %w", ctx.Err())
}

func TestTheOperationsContextEndsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := timeout.New(timeout.Config{Name: "bank", After: time.Second})
		start := time.Now()
		err := to.Do(t.Context(), hang)
		require.Equal(t, time.Second, time.Since(start))
		require.ErrorIs(t, err, timeout.ErrTimeout)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.EqualError(t, err, `timeout "bank": no answer within 1s: reading the reply: context deadline exceeded`)
		require.Equal(t, timeout.Stats{Calls: 1, TimedOut: 1}, to.Stats())
	})
}

func TestTheCallersOwnDeadlineIsNotOurs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		to := timeout.New(timeout.Config{After: time.Minute})
		err := to.Do(ctx, hang)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NotErrorIs(t, err, timeout.ErrTimeout)
		require.Zero(t, to.Stats().TimedOut)
	})
}

func TestOfTwoTimeoutsTheOneThatRanOutSpeaks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		total := timeout.New(timeout.Config{Name: "total", After: time.Second})
		attempt := timeout.New(timeout.Config{Name: "attempt", After: time.Minute})
		err := total.Do(t.Context(), func(ctx context.Context) error { return attempt.Do(ctx, hang) })
		var ranOut *timeout.Error
		require.ErrorAs(t, err, &ranOut)
		require.Equal(t, "total", ranOut.Name)
		require.Zero(t, attempt.Stats().TimedOut)
	})
}

func TestAResultInTimeIsKeptThoughTheDeadlinePasses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := timeout.New(timeout.Config{After: time.Second})
		out, err := timeout.Wrap(to, func(ctx context.Context, n int) (int, error) {
			<-ctx.Done()
			return n, nil
		})(t.Context(), 7)
		require.NoError(t, err)
		require.Equal(t, 7, out)
	})
}

type rejection struct{}

func (rejection) Error() string             { return "rejected" }
func (rejection) Rejected() bool            { return true }
func (rejection) Permanent() bool           { return true }
func (rejection) RetryAfter() time.Duration { return time.Minute }

func TestTheErrorForwardsWhatItWraps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		to := timeout.New(timeout.Config{After: time.Second})
		err := to.Do(t.Context(), func(ctx context.Context) error { <-ctx.Done(); return rejection{} })
		var ranOut *timeout.Error
		require.ErrorAs(t, err, &ranOut)
		require.True(t, ranOut.Rejected() && ranOut.Permanent() && ranOut.Timeout())
		require.Equal(t, time.Minute, ranOut.RetryAfter())
		require.ErrorIs(t, err, rejection{})
	})
}

func TestOtherErrorsPassAsTheyAre(t *testing.T) {
	to := timeout.New(timeout.Config{})
	require.Equal(t, errBroken, to.Do(t.Context(), func(context.Context) error { return errBroken }))
}

func TestOffLeavesTheContextAlone(t *testing.T) {
	to := timeout.New(timeout.Config{After: -1})
	require.NoError(t, to.Do(t.Context(), func(ctx context.Context) error {
		_, ok := ctx.Deadline()
		require.False(t, ok)
		return nil
	}))
}

func TestPanicReleasesTheTimer(t *testing.T) {
	to := timeout.New(timeout.Config{After: time.Minute})
	var inner context.Context
	require.PanicsWithValue(t, "boom", func() {
		_ = to.Do(t.Context(), func(ctx context.Context) error { inner = ctx; panic("boom") })
	})
	require.ErrorIs(t, inner.Err(), context.Canceled)

	require.PanicsWithValue(t, "boom", func() {
		_, _ = timeout.Wrap(to, func(ctx context.Context, _ int) (int, error) { inner = ctx; panic("boom") })(t.Context(), 1)
	})
	require.ErrorIs(t, inner.Err(), context.Canceled)
}

func TestConfigAndReconfigure(t *testing.T) {
	var c timeout.Config
	require.NoError(t, json.Unmarshal([]byte(`{"name":"x","after":"250ms"}`), &c))
	to := timeout.New(c)
	require.Equal(t, timeout.Config{Name: "x", After: 250 * time.Millisecond}, to.Config())
	require.NoError(t, to.Reconfigure(timeout.Config{}))
	require.Equal(t, timeout.Config{Name: "timeout", After: time.Second}, to.Config())
	require.Error(t, json.Unmarshal([]byte(`{"before":"250ms"}`), &c))
	require.Panics(t, func() { timeout.Wrap[int, int](to, nil) })
	kind, name, config := to.Describe()
	require.Equal(t, []any{"timeout", "timeout", to.Config()}, []any{kind, name, config})
	metrics := maps.Collect(to.Metrics())
	require.Equal(t, map[string]float64{"calls_total": 0, "timed_out_total": 0, "abandoned": 0, "late_panics_total": 0}, metrics)
}
