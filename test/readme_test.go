package test

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestTheReadmeShowsCompiledCode compares the README's first block of Go with the part of the quickstart that it shows.
func TestTheReadmeShowsCompiledCode(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	require.NoError(t, err)
	_, after, found := strings.Cut(string(readme), "```go\n")
	require.True(t, found, "README.md has no block of Go")
	shown, _, _ := strings.Cut(after, "```")

	source, err := os.ReadFile("../examples/quickstart/main.go")
	require.NoError(t, err)
	_, after, found = strings.Cut(string(source), "// readme: what the README shows first.\n")
	require.True(t, found)
	compiled, _, found := strings.Cut(after, "\t// readme: end")
	require.True(t, found)

	var lines []string
	for line := range strings.Lines(compiled) {
		lines = append(lines, strings.TrimPrefix(line, "\t"))
	}
	require.Equal(t, strings.TrimSpace(strings.Join(lines, "")), strings.TrimSpace(shown))
	require.LessOrEqual(t, strings.Count(shown, "\n"), 15, "lines of code in the README's first block")
}
