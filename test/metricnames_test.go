package test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var metricNameRule = regexp.MustCompile(`^[a-z][a-z0-9]*(_[a-z0-9]+)*$`)

// TestMetricNamesFollowTheRule reads the names that the Metrics methods of all modules yield as literals, drivers' included, which
// no test can make without their servers: snake_case, times in seconds and called so.
func TestMetricNamesFollowTheRule(t *testing.T) {
	names := 0
	require.NoError(t, filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		require.NoError(t, err)
		for _, d := range file.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv != nil && fn.Name.Name == "Metrics" {
				names += checkMetrics(t, path, fn)
			}
		}
		return nil
	}))
	require.Greater(t, names, 150, "this test no longer finds the names")
}

func checkMetrics(t *testing.T, path string, fn *ast.FuncDecl) (names int) {
	t.Helper()
	ast.Inspect(fn, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) != 2 {
			return true
		}
		if called, ok := call.Fun.(*ast.Ident); !ok || called.Name != "yield" {
			return true
		}
		if literal, ok := call.Args[0].(*ast.BasicLit); ok {
			name, err := strconv.Unquote(literal.Value)
			require.NoError(t, err)
			checkMetric(t, path, name, call.Args[1])
			names++
		}
		return true
	})
	return names
}

func checkMetric(t *testing.T, path, name string, value ast.Expr) {
	t.Helper()
	if !metricNameRule.MatchString(name) {
		t.Errorf("%s: %q is not in snake_case", path, name)
	}
	seconds, times := strings.HasSuffix(strings.TrimSuffix(name, "_total"), "_seconds"), false
	ast.Inspect(value, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			times = times || s.Sel.Name == "Seconds"
			if s.Sel.Name == "Milliseconds" || s.Sel.Name == "Microseconds" || s.Sel.Name == "Nanoseconds" {
				t.Errorf("%s: %q is not in seconds", path, name)
			}
		}
		return true
	})
	if seconds != times {
		t.Errorf("%s: %q: a time, and nothing else, ends in _seconds, before _total", path, name)
	}
}
