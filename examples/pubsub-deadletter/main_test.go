package main

import (
	"bytes"
	"sort"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTheStory(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), &out), &out)
	before, after, found := strings.Cut(out.String(), "the broker is started again\n")
	require.True(t, found, &out)
	require.Equal(t, []string{
		"billing: jam", "billing: mug", "billing: tea",
		"mail: gibberish", "mail: jam", "mail: mug", "mail: tea", "mail: yacht",
	}, sorted(before))
	require.Equal(t, []string{
		"2 dead letters are sent back", "billing: gibberish", "billing: yacht",
		"dead letter: gibberish after 1 attempts: not an order",
		"dead letter: yacht after 3 attempts: above the limit of the card",
	}, sorted(after))
}

func sorted(lines string) []string {
	split := strings.Split(strings.TrimSpace(lines), "\n")
	sort.Strings(split)
	return split
}
