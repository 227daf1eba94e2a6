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
