package test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// patternSections are the headings of each page of docs/patterns, in their order.
var patternSections = []string{"Problem", "When not", "How it works", "Code", "How it fails itself", "Cost", "Proof"}

// patternPages are the pages of docs/patterns without their index.
func patternPages(t *testing.T) (pages []string) {
	t.Helper()
	found, err := filepath.Glob("../docs/patterns/*.md")
	require.NoError(t, err)
	for _, page := range found {
		if filepath.Base(page) != "README.md" {
			pages = append(pages, page)
		}
	}
	require.NotEmpty(t, pages)
	return pages
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(data)
}

// TestThePatternPagesAreAlike holds the pages of patterns to one form, and the index to all of them.
func TestThePatternPagesAreAlike(t *testing.T) {
	index := read(t, "../docs/patterns/README.md")
	heading := regexp.MustCompile(`(?m)^## (.+)$`)
	for _, page := range patternPages(t) {
		text := read(t, page)
		var sections []string
		for _, found := range heading.FindAllStringSubmatch(text, -1) {
			sections = append(sections, found[1])
		}
		require.Equal(t, patternSections, sections, "sections of %s", page)
		require.LessOrEqual(t, strings.Count(text, "\n"), 90, "lines of %s", page)
		require.Contains(t, index, "]("+filepath.Base(page)+")", "the index of patterns")
		_, proof, _ := strings.Cut(text, "\n## Proof\n")
		require.NotEmpty(t, testsNamedIn(proof), "%s names no test as proof", page)
	}
}

// TestThePagesNameTestsThatExist looks for every test that a page of the repository gives as proof. The change log is left out: it tells of
// the past.
func TestThePagesNameTestsThatExist(t *testing.T) {
	exists, named := testsOfTheRepository(t), 0
	for _, page := range markdown(t) {
		if filepath.Base(page) == "CHANGELOG.md" {
			continue
		}
		for _, name := range testsNamedIn(read(t, page)) {
			named++
			require.True(t, anyTest(exists, name), "%s names %s", page, name)
		}
	}
	require.Greater(t, named, 100, "this test no longer finds the names")
}

var (
	testDeclared = regexp.MustCompile(`(?m)^func (Test[A-Z]\w*)\(\w+ \*testing\.T\)`)
	testNamed    = regexp.MustCompile(`\bTest[A-Z]\w*[…\[]?`)
)

// testsNamedIn are the names of tests in a text. One that ends in … or [ stands for all that begin so.
func testsNamedIn(text string) []string { return testNamed.FindAllString(text, -1) }

func anyTest(exists map[string]bool, name string) bool {
	prefix := strings.TrimRight(name, "…[")
	if prefix == name {
		return exists[name]
	}
	for declared := range exists {
		if strings.HasPrefix(declared, prefix) {
			return true
		}
	}
	return false
}

func testsOfTheRepository(t *testing.T) map[string]bool {
	t.Helper()
	exists := map[string]bool{}
	eachFile(t, "_test.go", func(source string) {
		for _, found := range testDeclared.FindAllStringSubmatch(source, -1) {
			exists[found[1]] = true
		}
	})
	return exists
}

// eachFile reads the files of the repository whose names end so.
func eachFile(t *testing.T, suffix string, do func(source string)) {
	t.Helper()
	require.NoError(t, filepath.WalkDir("..", func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.IsDir() && entry.Name() == ".git" {
			return filepath.SkipDir
		}
		if err == nil && !entry.IsDir() && strings.HasSuffix(path, suffix) {
			do(read(t, path))
		}
		return err
	}))
}

func TestATestThatDoesNotExistIsFound(t *testing.T) {
	exists := map[string]bool{"TestOrder": true, "TestT01_HalfOpen": true}
	require.Equal(t, []string{"TestOrder", "TestT[", "TestT0…"}, testsNamedIn("`TestOrder`, -run 'TestT[0-9]', `TestT0…`, Testing, aTestX"))
	for _, good := range []string{"TestOrder", "TestT[", "TestOr…"} {
		require.True(t, anyTest(exists, good), good)
	}
	for _, bad := range []string{"TestOr", "TestOrders", "TestOrders…", "TestF["} {
		require.False(t, anyTest(exists, bad), bad)
	}
}

// TestThePatternPagesShowCompiledExamples looks for every block of Go in the pages of patterns among the lines of the examples, which are
// compiled and run by their own tests.
func TestThePatternPagesShowCompiledExamples(t *testing.T) {
	var examples []string
	paths, err := filepath.Glob("../examples/*/main.go")
	require.NoError(t, err)
	for _, path := range paths {
		examples = append(examples, read(t, path))
	}
	for _, page := range patternPages(t) {
		blocks := between(read(t, page), "```go\n", "```")
		require.NotEmpty(t, blocks, "%s shows no code", page)
		for _, block := range blocks {
			require.True(t, shownBy(examples, block), "%s shows code that is in no examples/*/main.go:\n%s", page, block)
		}
	}
}

// shownBy says whether one of the sources has these lines, one after the other, each indented by as many tabs more.
func shownBy(sources []string, block string) bool {
	for tabs := range 4 {
		var indented strings.Builder
		for line := range strings.Lines(block) {
			if line != "\n" {
				indented.WriteString(strings.Repeat("\t", tabs))
			}
			indented.WriteString(line)
		}
		for _, source := range sources {
			if strings.Contains("\n"+source, "\n"+indented.String()) {
				return true
			}
		}
	}
	return false
}

func TestABlockThatIsNotCompiledIsFound(t *testing.T) {
	source := []string{"func a() {\n\tif b {\n\t\tc()\n\n\t\td()\n\t}\n}\n"}
	for _, good := range []string{"if b {\n\tc()\n\n\td()\n}\n", "c()\n\nd()\n", "func a() {\n"} {
		require.True(t, shownBy(source, good), good)
	}
	for _, bad := range []string{"c()\nd()\n", "if b {\nc()\n", "b {\n", "d(1)\n"} {
		require.False(t, shownBy(source, bad), bad)
	}
}

// TestThePatternPagesNameMetricsThatExist looks for the counters and times that the pages send operators to among what the Metrics methods
// yield.
func TestThePatternPagesNameMetricsThatExist(t *testing.T) {
	exists := map[string]bool{}
	yielded, named := regexp.MustCompile(`\byield\("([a-z0-9_]+)`), regexp.MustCompile("`([a-z0-9]+(?:_[a-z0-9]+)*_(?:total|seconds))")
	eachFile(t, ".go", func(source string) {
		for _, found := range yielded.FindAllStringSubmatch(source, -1) {
			exists[found[1]] = true
		}
	})
	for _, page := range patternPages(t) {
		for _, found := range named.FindAllStringSubmatch(read(t, page), -1) {
			require.True(t, exists[found[1]], "%s names the metric %s", page, found[1])
		}
	}
}
