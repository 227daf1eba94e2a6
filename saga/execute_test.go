package saga_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/memsaga"
)

// Where the instance rests, the caller's goroutine gives it up and waits for whoever goes on with it: Execute returns neither early nor with
// a nil error for what has not completed.
func TestExecuteOutlastsThePausesOfTheInstance(t *testing.T) {
	refused := saga.Step[order]{Name: "b", Do: func(context.Context, *order) error { return saga.Permanent(errBoom) }}
	for name, c := range map[string]struct {
		steps []saga.Step[order]
		want  error
	}{
		"a step that fails at first": {[]saga.Step[order]{new(journal).step("a", fails(2, errBoom), nil)}, nil},
		"a step that sleeps": {[]saga.Step[order]{
			saga.SleepUntil("a", func(o order) time.Time { return time.Unix(int64(o.N), 0) }),
		}, nil},
		"an event that does not come": {[]saga.Step[order]{
			saga.Await("a", "event", time.Minute, func(context.Context, *order, int) error { return nil }),
		}, saga.ErrCompensated},
		"an undo that fails at first": {[]saga.Step[order]{new(journal).step("a", nil, fails(2, errBoom)), refused}, saga.ErrCompensated},
		"an undo that fails for good": {[]saga.Step[order]{new(journal).step("a", nil, fails(-1, errBoom)), refused}, saga.ErrStuck},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := define(t, c.steps...)
				r := runner(t, memsaga.New(), d)
				defer running(t, r)()
				res, err := saga.Execute(t.Context(), r, d, "1", order{N: int(time.Now().Add(time.Minute).Unix())})
				if c.want == nil {
					require.NoError(t, err)
				} else {
					require.ErrorIs(t, err, c.want)
				}
				require.False(t, res.Status.Active(), res.Status)
			})
		})
	}
}
