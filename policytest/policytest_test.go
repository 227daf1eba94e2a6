package policytest_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/backstay-go/backstay/policytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type policyFunc func(ctx context.Context, op func(context.Context) error) error

func (f policyFunc) Do(ctx context.Context, op func(context.Context) error) error { return f(ctx, op) }

func run(ctx context.Context, op func(context.Context) error) error { return op(ctx) }

// broken has a policy for every clause of the contract, each breaking that clause alone as far as that is possible.
func broken() map[string]factory {
	return map[string]factory{
		"SuccessIsPassedOn": stateless(func(ctx context.Context, op func(context.Context) error) error {
			_ = op(ctx)
			return op(ctx)
		}),
		"TheErrorReachesTheCaller": stateless(func(ctx context.Context, op func(context.Context) error) error {
			if op(ctx) != nil {
				return context.Canceled
			}
			return nil
		}),
		"NilOnlyIfTheLastRunWasNil": stateless(func(ctx context.Context, op func(context.Context) error) error {
			_ = op(ctx)
			return nil
		}),
		"NeverTwoAtOnceNorAfterwards": stateless(func(ctx context.Context, op func(context.Context) error) error {
			second := make(chan error)
			go func() { second <- op(ctx) }()
			return errors.Join(op(ctx), <-second)
		}),
		"TheContextIsDerived": stateless(func(_ context.Context, op func(context.Context) error) error {
			return op(context.Background())
		}),
		"PanicsPassAndRelease": leaking(),
		"GoexitPassesAndReleases": stateless(func(ctx context.Context, op func(context.Context) error) error {
			done := make(chan error)
			go func() {
				defer close(done)
				done <- op(ctx)
			}()
			return <-done
		}),
	}
}

type factory func() policytest.Policy

func stateless(f policyFunc) factory { return func() policytest.Policy { return f } }

// leaking holds one permit and does not give it back when the operation panics.
func leaking() factory {
	return func() policytest.Policy {
		permits := make(chan struct{}, 1)
		return policyFunc(func(ctx context.Context, op func(context.Context) error) error {
			select {
			case permits <- struct{}{}:
			case <-ctx.Done():
				return ctx.Err()
			}
			err := op(ctx)
			<-permits
			return err
		})
	}
}

const childVariable = "POLICYTEST_BROKEN"

func TestAPolicyThatKeepsTheContractPasses(t *testing.T) {
	policytest.Run(t, stateless(run))
}

// TestEachBreachIsFound runs the suite in a child process for each broken policy, because it has to fail there.
func TestEachBreachIsFound(t *testing.T) {
	if name := os.Getenv(childVariable); name != "" {
		policytest.Run(t, broken()[name])
		return
	}
	for name := range broken() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestEachBreachIsFound$/^"+name+"$")
			child.Env = append(os.Environ(), childVariable+"="+name)
			out, err := child.CombinedOutput()
			require.Error(t, err, "the suite passed a policy that breaks %s", name)
			require.Contains(t, string(out), "--- FAIL: TestEachBreachIsFound/"+name)
		})
	}
}
