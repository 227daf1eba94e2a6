package test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// page is a page of the docs.
func page(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("../docs", name))
	require.NoError(t, err)
	return string(data)
}

// TestTheAlertsNameMetricsThatExist looks for the metrics of the alerts in docs/operating.md among what the objects yield.
func TestTheAlertsNameMetricsThatExist(t *testing.T) {
	all := observedTypes(t)
	exists, kind := map[string]bool{"backstay_name": true}, strings.NewReplacer(".", "_", " ", "_")
	for object, found := range all {
		for _, name := range namesListed(all, object) {
			exists["backstay_"+kind.Replace(strings.ToLower(found.kind))+"_"+name] = true
		}
	}
	named := regexp.MustCompile(`\bbackstay_[a-z_]+\b`).FindAllString(page(t, "operating.md"), -1)
	require.Greater(t, len(named), 15, "this test no longer finds the alerts")
	for _, name := range named {
		require.True(t, exists[name] || name == "backstay_", "docs/operating.md names %s", name)
	}
}

// TestTheRunbooksNameCommandsThatExist looks for the commands of the runbooks in the help of the command, and for their flags in its source.
func TestTheRunbooksNameCommandsThatExist(t *testing.T) {
	help := map[string]string{"outbox": "usage.golden", "saga": "sagas_usage.golden"}
	flags, commands := flagsOfTheCommand(t), 0
	for _, block := range between(page(t, "operating.md"), "```sh\n", "```") {
		for line := range strings.Lines(block) {
			command, _, _ := strings.Cut(line, "#")
			words := strings.Fields(command)
			if len(words) < 3 || words[0] != "backstay" {
				continue
			}
			commands++
			text, err := os.ReadFile(filepath.Join("../cmd/backstay/testdata", help[words[1]]))
			require.NoError(t, err, line)
			require.Regexp(t, `(?m)^  `+regexp.QuoteMeta(words[2])+` `, string(text), "there is no %s", line)
			for _, word := range words[3:] {
				if flag, ok := strings.CutPrefix(word, "-"); ok {
					require.True(t, flags[flag], "there is no flag %s: %s", word, line)
				}
			}
		}
	}
	require.Greater(t, commands, 10, "this test no longer finds the commands")
}

func flagsOfTheCommand(t *testing.T) map[string]bool {
	t.Helper()
	flags := map[string]bool{}
	paths, err := filepath.Glob("../cmd/backstay/*.go")
	require.NoError(t, err)
	declared := regexp.MustCompile(`(?:Var\([^"\n]*|Bool\()"([a-z-]+)"`)
	for _, path := range paths {
		source, err := os.ReadFile(path)
		require.NoError(t, err)
		for _, found := range declared.FindAllStringSubmatch(string(source), -1) {
			flags[found[1]] = true
		}
	}
	return flags
}
