package test

import (
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const root = "github.com/backstay-go/backstay"

// listed is what these tests need of a package as "go list -json" describes it.
type listed struct {
	ImportPath   string
	Standard     bool
	Imports      []string
	TestImports  []string
	XTestImports []string
}

// list runs "go list" in the folder of a module, outside the workspace.
func list(t *testing.T, dir string, args ...string) []listed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"list", "-json=ImportPath,Standard,Imports,TestImports,XTestImports"}, args...)...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	require.NoError(t, err, "go list %s in %s", strings.Join(args, " "), dir)
	var packages []listed
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := dec.Decode(&p); err == io.EOF {
			return packages
		}
		require.NoError(t, err)
		packages = append(packages, p)
	}
}

func under(path string, prefixes ...string) bool {
	return slices.ContainsFunc(prefixes, func(prefix string) bool {
		return path == prefix || strings.HasPrefix(path, prefix+"/")
	})
}

func controlPackages() []string {
	return []string{
		root, root + "/retry", root + "/breaker", root + "/bulkhead", root + "/fallback", root + "/timeout",
		root + "/ratelimit", root + "/hedge", root + "/policyhttp",
	}
}

// TestControlPackagesLinkNextToNothing builds a module as a user would, outside the repository, and looks at what it links.
func TestControlPackagesLinkNextToNothing(t *testing.T) {
	repository, err := filepath.Abs("..")
	require.NoError(t, err)
	dir := t.TempDir()
	var program strings.Builder
	program.WriteString("package main\n\nimport (\n")
	for _, path := range controlPackages() {
		program.WriteString("\t_ \"" + path + "\"\n")
	}
	program.WriteString(")\n\nfunc main() {}\n")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "main.go"), []byte(program.String()), 0o600))
	gomod := "module example.org/service\n\ngo 1.26\n\nrequire " + root + " v0.0.0\n\nreplace " + root + " => " + repository + "\n"
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go.mod"), []byte(gomod), 0o600))
	build := exec.CommandContext(t.Context(), "go", "build", "-mod=mod", "-o", os.DevNull, ".")
	build.Dir = dir
	build.Env = append(os.Environ(), "GOWORK=off")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)

	for _, p := range list(t, dir, "-mod=mod", "-deps", ".") {
		if !p.Standard && !under(p.ImportPath, root, "example.org/service", "golang.org/x/sync", "github.com/cenkalti/backoff/v4") {
			t.Errorf("a binary with the control packages alone links %s", p.ImportPath)
		}
	}
}

func TestTheRootModuleLinksOnlyWhatIsAgreed(t *testing.T) {
	for _, p := range list(t, "..", "-deps", "./...") {
		if !p.Standard && !under(p.ImportPath, root, "golang.org/x/sync", "github.com/cenkalti/backoff/v4", "github.com/maypok86/otter/v2") {
			t.Errorf("the root module links %s", p.ImportPath)
		}
	}
}

// patternOf is the pattern that a package belongs to, "" for the root package and for those that all patterns use.
func patternOf(path string) string {
	rest, ours := strings.CutPrefix(path, root+"/")
	pattern, _, _ := strings.Cut(rest, "/")
	if !ours || pattern == "internal" || pattern == "configdata" {
		return ""
	}
	return pattern
}

func TestPatternPackagesDoNotImportEachOther(t *testing.T) {
	allowed := map[string][]string{"outbox": {"pubsub"}} // it stores its messages
	composes := map[string]bool{"policyhttp": true}      // it is the root package's sibling for HTTP
	for _, p := range list(t, "..", "./...") {
		pattern := patternOf(p.ImportPath)
		if pattern == "" || composes[pattern] {
			continue
		}
		for _, imported := range p.Imports {
			other := patternOf(imported)
			if other != "" && other != pattern && !slices.Contains(allowed[pattern], other) {
				t.Errorf("%s imports %s", p.ImportPath, imported)
			}
			if imported == root {
				t.Errorf("%s imports the root package: it is the root that composes the patterns", p.ImportPath)
			}
		}
	}
}

func nestedModules() []string {
	return []string{
		"../backend/grpc", "../backend/kafka", "../backend/mysql", "../backend/nats", "../backend/otel", "../backend/postgres", "../backend/rabbitmq",
		"../backend/redis", "../backend/sqlite", "../bench", "../cmd", "../examples", "../test",
	}
}

func TestNestedModulesUseThePublicAPIOnly(t *testing.T) {
	for _, dir := range nestedModules() {
		for _, p := range list(t, dir, "./...") {
			for _, imported := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
				if under(imported, root+"/internal") {
					t.Errorf("%s imports %s", p.ImportPath, imported)
				}
			}
		}
	}
}

func TestNoTestLibraryIsLinkedIntoABinary(t *testing.T) {
	for _, dir := range []string{
		"../backend/grpc", "../backend/kafka", "../backend/mysql", "../backend/nats", "../backend/otel", "../backend/postgres", "../backend/rabbitmq",
		"../backend/redis", "../backend/sqlite", "../cmd", "../examples",
	} {
		for _, p := range list(t, dir, "-deps", "./...") {
			if under(p.ImportPath, "github.com/stretchr/testify", "pgregory.net/rapid", "go.uber.org/goleak") {
				t.Errorf("%s links %s", dir, p.ImportPath)
			}
		}
	}
}

func TestEveryModuleIsInTheWorkspace(t *testing.T) {
	work, err := os.ReadFile("../go.work")
	require.NoError(t, err)
	for _, dir := range nestedModules() {
		require.Contains(t, string(work), "\t./"+strings.TrimPrefix(dir, "../")+"\n")
	}
	require.NoError(t, filepath.WalkDir("..", func(path string, entry os.DirEntry, err error) error {
		if err == nil && entry.Name() == "go.mod" && path != "../go.mod" && path != "go.mod" {
			require.Contains(t, nestedModules(), filepath.Dir(path))
		}
		return err
	}))
}
