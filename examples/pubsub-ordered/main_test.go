package main

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTheStory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		start := time.Now()
		require.NoError(t, run(t.Context(), &out), &out)
		require.Equal(t, 400*time.Millisecond, time.Since(start), "two delays, and nothing else takes time")
		require.Equal(t, 2, strings.Count(out.String(), "ben: deposit fails"))
		require.Equal(t, 1, strings.Count(out.String(), "ben: deposit\n"))
		require.Contains(t, out.String(), "nobody waited for ben")
	})
}

func TestAStoryThatIsNotTrueIsAnError(t *testing.T) {
	var inOrder []string
	for _, account := range accounts {
		for _, change := range changes {
			inOrder = append(inOrder, account+": "+change)
		}
	}
	b := &book{out: new(bytes.Buffer), entries: inOrder}
	require.ErrorContains(t, b.check(), `"cleo: close" had to wait for ben`)
	inOrder[0], inOrder[1] = inOrder[1], inOrder[0]
	require.ErrorContains(t, b.check(), `out of order: ["anna: deposit" "anna: open"`)
}
