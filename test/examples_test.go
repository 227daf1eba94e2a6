package test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// services are the examples that are more than one pattern. They have files as they need them, and run long: their own tests and .ci/run do
// that.
var services = []string{"shop", "workers"}

// exampleFolders are the folders of the examples, all of them: what is added is covered.
func exampleFolders(t *testing.T) (names []string) {
	t.Helper()
	entries, err := os.ReadDir("../examples")
	require.NoError(t, err)
	for _, entry := range entries {
		if entry.IsDir() {
			names = append(names, entry.Name())
		}
	}
	for _, name := range services {
		require.Contains(t, names, name, "a service that is not there")
	}
	return names
}

func TestEachExampleIsWhole(t *testing.T) {
	for _, name := range exampleFolders(t) {
		for _, file := range []string{"main.go", "main_test.go", "README.md"} {
			require.FileExists(t, filepath.Join("../examples", name, file))
		}
		if slices.Contains(services, name) {
			continue
		}
		source, err := os.ReadFile(filepath.Join("../examples", name, "main.go"))
		require.NoError(t, err)
		require.Less(t, bytes.Count(source, []byte("\n")), 150, "lines of examples/%s/main.go", name)
		readme, err := os.ReadFile(filepath.Join("../examples", name, "README.md"))
		require.NoError(t, err)
		require.Contains(t, string(readme), "    go run ./examples/"+name, "examples/%s/README.md says how to run it", name)
	}
}

// TestEachExampleCanBeCopiedOut copies every folder of the examples into a module outside the repository, as a user would, where it finds
// nothing of its neighbours, and runs it. One go.mod serves them all, or each would be resolved, built and linked alone.
func TestEachExampleCanBeCopiedOut(t *testing.T) {
	if raceDetector {
		t.Skip("the compiler does the same with and without the race detector: see the run without")
	}
	dir, names := t.TempDir(), exampleFolders(t)
	emptyModule(t, dir)
	for _, name := range names {
		require.NoError(t, os.CopyFS(filepath.Join(dir, name), os.DirFS(filepath.Join("../examples", name))))
	}
	goTool(t, dir, "vet", "./...") // the tests too
	small := slices.DeleteFunc(names, func(name string) bool { return slices.Contains(services, name) })
	built := filepath.Join(dir, "built")
	require.NoError(t, os.Mkdir(built, 0o700))
	build := []string{"build", "-ldflags=-s -w", "-o", built}
	for _, name := range small {
		build = append(build, "./"+name)
	}
	goTool(t, dir, build...)
	for _, name := range small {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			program := exec.CommandContext(ctx, filepath.Join(built, name))
			program.Dir = t.TempDir()
			out, err := program.CombinedOutput()
			require.NoError(t, err, "%s", out)
			require.NotEmpty(t, out, "it tells no story")
			left, err := os.ReadDir(program.Dir)
			require.NoError(t, err)
			require.Empty(t, left, "what it leaves behind")
		})
	}
}

// emptyModule makes a module of what the examples require, with the repository in place of what is published.
func emptyModule(t *testing.T, dir string) {
	t.Helper()
	repository, err := filepath.Abs("..")
	require.NoError(t, err)
	gomod, err := os.ReadFile("../examples/go.mod")
	require.NoError(t, err)
	gosum, err := os.ReadFile("../examples/go.sum")
	require.NoError(t, err)
	outside := strings.NewReplacer("module "+root+"/examples", "module example.org/copy", "=> ..", "=> "+repository).Replace(string(gomod))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go.mod"), []byte(outside), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go.sum"), gosum, 0o600))
}

// goTool runs the go command outside the workspace.
func goTool(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "go %s\n%s", strings.Join(args, " "), out)
}
