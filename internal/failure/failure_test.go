package failure_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/internal/failure"
)

type refusal struct{}

func (refusal) Error() string             { return "refused" }
func (refusal) Rejected() bool            { return true }
func (refusal) Permanent() bool           { return true }
func (refusal) RetryAfter() time.Duration { return time.Second }

func TestBehaviourIsAskedOfTheErrorItself(t *testing.T) {
	require.True(t, failure.Rejected(refusal{}))
	require.True(t, failure.Permanent(refusal{}))
	require.Equal(t, time.Second, failure.RetryAfter(refusal{}))
}

func TestAWrappedRejectionIsTheWrappersOwnFailure(t *testing.T) {
	wrapped := fmt.Errorf("reading the basket: %w", refusal{})
	require.False(t, failure.Rejected(wrapped))
	require.False(t, failure.Permanent(wrapped))
	require.Zero(t, failure.RetryAfter(wrapped))
	require.False(t, failure.Rejected(nil))
	require.False(t, failure.Permanent(errors.New("plain")))
}

type (
	rejecting  struct{ error }
	permanent  struct{ error }
	patient    struct{ error }
	asking     struct{ error }
	wrapping   struct{ error }
	collecting struct{ error }
)

func (rejecting) Rejected() bool          { return true }
func (permanent) Permanent() bool         { return true }
func (patient) RetryAfter() time.Duration { return 1 }
func (asking) As(any) bool                { return true }
func (wrapping) Unwrap() error            { return nil }
func (collecting) Unwrap() []error        { return nil }

func TestPlainErrorsHaveNothingToSay(t *testing.T) {
	require.True(t, failure.Plain(errors.New("plain")))
	for _, err := range []error{rejecting{}, permanent{}, patient{}, asking{}, wrapping{}, collecting{}} {
		require.False(t, failure.Plain(err), "%T", err)
	}
}
