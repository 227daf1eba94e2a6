package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestEachExampleCanBeCopiedOut builds every folder of the examples alone, in a module outside the repository.
func TestEachExampleCanBeCopiedOut(t *testing.T) {
	repository, err := filepath.Abs("..")
	require.NoError(t, err)
	gomod, err := os.ReadFile("../examples/go.mod")
	require.NoError(t, err)
	gosum, err := os.ReadFile("../examples/go.sum")
	require.NoError(t, err)
	outside := strings.NewReplacer("module "+root+"/examples", "module example.org/copy", "=> ..", "=> "+repository).Replace(string(gomod))

	folders, err := os.ReadDir("../examples")
	require.NoError(t, err)
	for _, folder := range folders {
		if !folder.IsDir() {
			continue
		}
		t.Run(folder.Name(), func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.CopyFS(dir, os.DirFS(filepath.Join("../examples", folder.Name()))))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "go.mod"), []byte(outside), 0o600))
			require.NoError(t, os.WriteFile(filepath.Join(dir, "go.sum"), gosum, 0o600))
			build := exec.CommandContext(t.Context(), "go", "build", "-o", os.DevNull, ".")
			build.Dir = dir
			build.Env = append(os.Environ(), "GOWORK=off")
			out, err := build.CombinedOutput()
			require.NoError(t, err, "%s", out)
		})
	}
}
