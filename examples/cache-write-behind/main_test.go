package main

import (
	"bytes"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTheStory(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), &out), &out)
	require.Equal(t, 4, strings.Count(out.String(), "\n"))
	counts := regexp.MustCompile(`(?m)^100 views: \d+ batches, (\d+) writes for the table, (\d+) were replaced by later ones$`).FindStringSubmatch(out.String())
	require.Len(t, counts, 3, &out)
	written, err := strconv.Atoi(counts[1])
	require.NoError(t, err)
	replaced, err := strconv.Atoi(counts[2])
	require.NoError(t, err)
	require.Equal(t, 100, written+replaced)
	require.Contains(t, out.String(), "2 products are pending")
	require.Contains(t, out.String(), "takes over 2 writes from the journal")
	require.Contains(t, out.String(), "the table has 75 and 75 views")
}
