package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTheStory(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), &out), &out)
	require.Equal(t, 7, strings.Count(out.String(), "\n"))
	require.Regexp(t, `(?m)^write -1 pence +refused$`, out.String())
	require.Regexp(t, `(?m)^20 writes at once: cache and table +£2\.(6|7)\d$`, out.String())
}

func TestAStoryThatIsNotTrueIsAnError(t *testing.T) {
	s := &story{out: new(bytes.Buffer)}
	s.tell("read", "£2.50", "£2.50")
	require.NoError(t, s.wrong)
	s.tell("read", "failure", "£2.50")
	require.EqualError(t, s.wrong, "read: failure, want £2.50")
}
