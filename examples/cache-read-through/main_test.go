package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTheStory(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), &out), &out)
	require.Contains(t, out.String(), "the table is gone; in memory")
	require.Contains(t, out.String(), "5 loads of which 2 failed")
}

func TestAStoryThatIsNotTrueIsAnError(t *testing.T) {
	var out bytes.Buffer
	s := &story{out: &out}
	s.tell("again", "£2.50", "£2.50", 0, 0)
	require.NoError(t, s.wrong)
	s.tell("again", "£2.50", "£2.50", 1, 0)
	require.ErrorContains(t, s.wrong, "again: £2.50 and 1 queries, want £2.50 and 0")
}
