package test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/require"
)

// An observed is a type with a Metrics method, as its source shows it.
type observed struct {
	kind    string   // the first result of Describe
	metrics []metric // in the order in which Metrics yields them
}

type metric struct{ name, says string }

// aliases are what the docs call types that are embedded in exported ones.
var aliases = map[string]string{"cache.engine": "cache.Cache, cache.Aside, cache.WriteThrough"}

// inherited are the metrics that a Metrics method yields besides its own literals: those of another object.
var inherited = map[string]string{"cache.WriteBehind": aliases["cache.engine"]}

// madeOf names the fields that make metrics which are not called like them.
var madeOf = map[string]string{"pubsub.Consumer lag": "Lag.Waiting", "pubsub.Consumer unsettled": "Lag.Unsettled"}

const (
	metricsBegin = "<!-- metrics: go test ./test -run TestMetricTable -update -->\n"
	metricsEnd   = "<!-- metrics: end -->\n"
)

// TestMetricTable compares the lists in docs/operating.md with the names that the Metrics methods of all modules yield and with what the
// documentation of Stats says of each, so that no metric goes without a word.
func TestMetricTable(t *testing.T) {
	all := observedTypes(t)
	var b strings.Builder
	for _, name := range sortedKeys(all) {
		fmt.Fprintf(&b, "\n### %s\n\nKind `%s`.", name, all[name].kind)
		if from := inherited[name]; from != "" {
			fmt.Fprintf(&b, " It has the metrics of %s, and these.", from)
		}
		b.WriteString("\n\n| metric | what it says |\n| --- | --- |\n")
		for _, m := range all[name].metrics {
			require.NotEmpty(t, m.says, "%s: the documentation of Stats says nothing of %s", name, m.name)
			fmt.Fprintf(&b, "| %s | %s |\n", m.name, m.says)
		}
	}
	b.WriteString("\n")
	generated(t, "../docs/operating.md", metricsBegin, metricsEnd, b.String())
}

// generated compares what stands on a page between two marks with what it ought to be, or writes it there with -update.
func generated(t *testing.T, page, begin, end, text string) {
	t.Helper()
	data, err := os.ReadFile(page)
	require.NoError(t, err)
	before, rest, found := strings.Cut(string(data), begin)
	require.True(t, found, "%s lacks %q", page, begin)
	shown, after, found := strings.Cut(rest, end)
	require.True(t, found, "%s lacks %q", page, end)
	if *update {
		require.NoError(t, os.WriteFile(page, []byte(before+begin+text+end+after), 0o600))
		return
	}
	require.Equal(t, text, shown, "run %s", strings.TrimSuffix(strings.TrimPrefix(begin, "<!-- "), " -->\n"))
}

// observedTypes reads every package but the tests' and examples'.
func observedTypes(t *testing.T) map[string]*observed {
	t.Helper()
	all := map[string]*observed{}
	require.NoError(t, filepath.WalkDir("..", func(dir string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return err
		}
		if name := entry.Name(); name == "examples" || name == "test" || name == "bench" || strings.HasPrefix(name, ".") && name != ".." {
			return fs.SkipDir
		}
		readPackage(t, dir, all)
		return nil
	}))
	require.Greater(t, len(all), 25, "this test no longer finds the objects")
	return all
}

// A source is one package, as far as these tests read it.
type source struct {
	structs map[string]*ast.StructType
	methods map[string]*ast.FuncDecl // by "Receiver.Name"
}

func readPackage(t *testing.T, dir string, all map[string]*observed) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.go"))
	require.NoError(t, err)
	s := source{map[string]*ast.StructType{}, map[string]*ast.FuncDecl{}}
	var name string
	for _, p := range paths {
		if strings.HasSuffix(p, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.ParseComments)
		require.NoError(t, err)
		name = file.Name.Name
		s.read(file)
	}
	for key, method := range s.methods {
		receiver, what, _ := strings.Cut(key, ".")
		if what != "Metrics" {
			continue
		}
		object := name + "." + receiver
		found := &observed{s.kind(receiver), s.metrics(object, receiver, method)}
		if alias := aliases[object]; alias != "" {
			object = alias
		}
		all[object] = found
	}
}

func (s source) read(file *ast.File) {
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Recv != nil {
				s.methods[typeName(d.Recv.List[0].Type)+"."+d.Name.Name] = d
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				if def, ok := spec.(*ast.TypeSpec); ok {
					if st, ok := def.Type.(*ast.StructType); ok {
						s.structs[def.Name.Name] = st
					}
				}
			}
		}
	}
}

// typeName is the name of a type without its pointer and its parameters.
func typeName(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return typeName(e.X)
	case *ast.IndexExpr:
		return typeName(e.X)
	case *ast.IndexListExpr:
		return typeName(e.X)
	case *ast.Ident:
		return e.Name
	}
	return ""
}

// kind is what Describe returns first, or that of the Describe it calls.
func (s source) kind(receiver string) (kind string) {
	ast.Inspect(s.methods[receiver+".Describe"], func(n ast.Node) bool {
		if r, ok := n.(*ast.ReturnStmt); ok && len(r.Results) == 3 {
			if literal, ok := r.Results[0].(*ast.BasicLit); ok {
				kind, _ = strconv.Unquote(literal.Value)
			}
		}
		return true
	})
	if kind == "" {
		kind = s.kind("engine")
	}
	return kind
}

func (s source) metrics(object, receiver string, method *ast.FuncDecl) (list []metric) {
	ast.Inspect(method, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) != 2 {
			return true
		}
		if f, ok := call.Fun.(*ast.Ident); !ok || f.Name != "yield" {
			return true
		}
		if literal, ok := call.Args[0].(*ast.BasicLit); ok {
			name, _ := strconv.Unquote(literal.Value)
			list = append(list, metric{"`" + name + "`", s.says(object, receiver, name, call.Args[1])})
		}
		return true
	})
	return joined(list)
}

// joined makes one row of neighbours that are documented together.
func joined(list []metric) (rows []metric) {
	for _, m := range list {
		if last := len(rows) - 1; last >= 0 && rows[last].says == m.says && m.says != "" {
			rows[last].name += ", " + m.name
			continue
		}
		rows = append(rows, m)
	}
	return rows
}

// says is the documentation of the field that a metric is made of: the one that the value selects in the receiver's Stats or in a struct of
// it, or else the one that is called like the metric.
func (s source) says(object, receiver, name string, value ast.Expr) string {
	if field := madeOf[object+" "+name]; field != "" {
		in, of, _ := strings.Cut(field, ".")
		return s.documentation(s.structs[in], of)
	}
	stats := s.statsOf(receiver)
	if in, of := selected(value); in != "" {
		if text := s.documentation(s.structs[fieldType(stats, in)], of); text != "" {
			return text
		}
	} else if text := s.documentation(stats, of); text != "" {
		return text
	}
	return s.documentation(stats, camel(strings.TrimSuffix(name, "_total")))
}

// statsOf is what the Stats method of a type returns; where there is none, the struct that is called after it.
func (s source) statsOf(receiver string) *ast.StructType {
	if method := s.methods[receiver+".Stats"]; method != nil {
		return s.structs[typeName(method.Type.Results.List[0].Type)]
	}
	return s.structs[receiver+"Stats"]
}

// selected are the last two fields that a value selects: of s.Store.Running Store and Running, of s.Running only Running.
func selected(value ast.Expr) (in, of string) {
	ast.Inspect(value, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok || of != "" {
			return true
		}
		if sel.Sel.Name == "Seconds" || sel.Sel.Name == "Load" {
			return true
		}
		of = capital(sel.Sel.Name)
		if outer, ok := sel.X.(*ast.SelectorExpr); ok {
			in = outer.Sel.Name
		}
		return true
	})
	return in, of
}

func fieldType(in *ast.StructType, name string) string {
	for _, field := range in.Fields.List {
		for _, n := range field.Names {
			if n.Name == name {
				return typeName(field.Type)
			}
		}
	}
	return ""
}

// documentation is what the source says of a field of a struct, or of one that is embedded in it.
func (s source) documentation(in *ast.StructType, name string) string {
	if in == nil {
		return ""
	}
	for _, field := range in.Fields.List {
		if len(field.Names) == 0 {
			if text := s.documentation(s.structs[typeName(field.Type)], name); text != "" {
				return text
			}
		}
		for _, n := range field.Names {
			if n.Name == name {
				text := strings.Join(strings.Fields(field.Doc.Text()+" "+field.Comment.Text()), " ")
				return tidied(text, name, len(field.Names) == 1)
			}
		}
	}
	return ""
}

// tidied leaves out the beginning that a doc comment has for godoc's sake.
func tidied(text, name string, alone bool) string {
	if alone {
		for _, verb := range []string{"is ", "are ", "counts ", "says ", "tells "} {
			text = strings.TrimPrefix(text, name+" "+verb)
		}
	}
	text = strings.TrimSuffix(strings.ReplaceAll(text, "|", `\|`), ".")
	return text
}

func capital(name string) string { return string(unicode.ToUpper(rune(name[0]))) + name[1:] }

func camel(snake string) (name string) {
	for word := range strings.SplitSeq(snake, "_") {
		name += capital(word)
	}
	return name
}

func sortedKeys[V any](m map[string]V) (keys []string) {
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
