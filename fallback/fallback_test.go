package fallback_test

import (
	"context"
	"encoding/json"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/backstay-go/backstay/fallback"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	errOutage = errors.New("outage")
	errCache  = errors.New("cache is empty")
)

func primary(context.Context, string) (int, error) { return 0, errOutage }

func isOutage(err error) bool { return errors.Is(err, errOutage) }

func answer(n int) fallback.Alternative[string, int] {
	return func(context.Context, string, error) (int, error) { return n, nil }
}

func fails(err error) fallback.Alternative[string, int] {
	return func(context.Context, string, error) (int, error) { return 0, err }
}

func TestSuccessAsksNoAlternative(t *testing.T) {
	f := fallback.New(fallback.Config{})
	fn := fallback.Wrap(f, func(context.Context, string) (int, error) { return 1, nil }, answer(2))
	ctx, seen := fallback.Observe(t.Context())
	out, err := fn(ctx, "")
	require.NoError(t, err)
	require.Equal(t, 1, out)
	require.False(t, seen.Degraded())
	require.NoError(t, seen.Cause())
	require.Zero(t, f.Stats())
	require.Zero(t, testing.AllocsPerRun(200, func() { _, _ = fn(ctx, "") }))
}

func TestAlternativesAreAskedInOrderUntilOneAnswers(t *testing.T) {
	var used []fallback.Event
	f := fallback.New(fallback.Config{Name: "price"}, fallback.OnUse(func(e fallback.Event) { used = append(used, e) }))
	notMine := fallback.Only(func(error) bool { return false }, answer(9))
	var cause error
	fn := fallback.Wrap(f, primary, notMine, fails(errCache), fallback.Only(isOutage,
		func(_ context.Context, _ string, c error) (int, error) { cause = c; return 3, nil }), answer(4))
	ctx, seen := fallback.Observe(t.Context())
	out, err := fn(ctx, "")
	require.NoError(t, err)
	require.Equal(t, 3, out)
	require.Equal(t, errOutage, cause)
	require.True(t, seen.Degraded())
	require.Equal(t, errOutage, seen.Cause())
	require.Equal(t, []fallback.Event{{Name: "price", Alternative: 2, Cause: errOutage}}, used)
	require.Equal(t, fallback.Stats{Used: 1}, f.Stats())
}

func TestTheFirstCauseIsKeptWhenAllFail(t *testing.T) {
	f := fallback.New(fallback.Config{Name: "price"})
	_, err := fallback.Wrap(f, primary, fails(errCache))(t.Context(), "")
	require.ErrorIs(t, err, errOutage)
	require.ErrorIs(t, err, errCache)
	require.EqualError(t, err, `fallback "price": outage; alternatives: cache is empty`)
	require.Equal(t, fallback.Stats{Failed: 1}, f.Stats())
}

func TestAnErrorOfNoClassPassesAsItIs(t *testing.T) {
	f := fallback.New(fallback.Config{})
	none := fallback.Only(func(error) bool { return false }, answer(9))
	_, err := fallback.Wrap(f, primary, none)(t.Context(), "")
	require.Equal(t, errOutage, err)
	require.Zero(t, f.Stats())
}

func TestNobodyIsAskedForACallerThatHasGone(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	fn := fallback.Wrap(fallback.New(fallback.Config{}), func(ctx context.Context, _ string) (int, error) {
		cancel()
		return 0, ctx.Err()
	}, answer(9))
	_, err := fn(ctx, "")
	require.Equal(t, context.Canceled, err)
}

func TestAPanicGoesOnUp(t *testing.T) {
	fn := fallback.Wrap(fallback.New(fallback.Config{}), func(context.Context, string) (int, error) { panic("boom") }, answer(9))
	require.PanicsWithValue(t, "boom", func() { _, _ = fn(t.Context(), "") })
}

func TestBadInputIsRefusedAtConstruction(t *testing.T) {
	f := fallback.New(fallback.Config{})
	require.Panics(t, func() { fallback.Wrap(f, primary) })
	require.Panics(t, func() { fallback.Wrap(f, primary, nil) })
	require.Panics(t, func() { fallback.Wrap(nil, primary, answer(1)) })
	require.Panics(t, func() { fallback.Only(nil, answer(1)) })
	require.Panics(t, func() { fallback.OnUse(nil) })
	var c fallback.Config
	require.Error(t, json.Unmarshal([]byte(`{"nam":"x"}`), &c))
	require.NoError(t, json.Unmarshal([]byte(`{"name":"x"}`), &c))
	require.NoError(t, f.Reconfigure(c))
	kind, name, config := f.Describe()
	require.Equal(t, []any{"fallback", "x", f.Config()}, []any{kind, name, config})
	for name, value := range f.Metrics() {
		require.Contains(t, []string{"used_total", "failed_total"}, name)
		require.Zero(t, value)
	}
}
