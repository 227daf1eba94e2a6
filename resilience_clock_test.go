package backstay_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// losesMonotonic are the methods of time.Time that look at the wall clock alone, or return a time that does.
var losesMonotonic = []string{
	"Unix", "UnixMilli", "UnixMicro", "UnixNano", "Truncate", "UTC", "Local", "In", "AddDate", "Date", "Clock", "Hour", "Minute",
	"Second", "Nanosecond", "Format", "AppendFormat", "MarshalText", "MarshalJSON", "MarshalBinary", "GobEncode",
}

// TestAWallClockJumpChangesNothing reads the source instead of turning the machine's clock: a time.Time that comes from time.Now
// is compared by its monotonic reading as long as nothing strips it, and in the control packages nothing may.
func TestAWallClockJumpChangesNothing(t *testing.T) {
	files := 0
	for _, dir := range []string{"retry", "breaker", "bulkhead", "fallback", "timeout", "ratelimit", "hedge"} {
		require.NoError(t, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			files++
			set := token.NewFileSet()
			file, err := parser.ParseFile(set, path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				method, ok := call.Fun.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				if from, ok := method.X.(*ast.Ident); ok && from.Name == "configdata" {
					return true
				}
				if slices.Contains(losesMonotonic, method.Sel.Name) || method.Sel.Name == "Round" && isZero(call.Args) {
					t.Errorf("%s: %s loses the monotonic reading", set.Position(n.Pos()), method.Sel.Name)
				}
				return true
			})
			return nil
		}))
	}
	require.Positive(t, files)
}

func isZero(args []ast.Expr) bool {
	if len(args) != 1 {
		return false
	}
	literal, ok := args[0].(*ast.BasicLit)
	return ok && literal.Value == "0"
}
