package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestEachExampleCanBeCopiedOut checks every folder of the examples as a package of a module outside the repository, where it finds
// nothing of its neighbours. It compiles with "go vet", which does not link: that would take most of the time and show nothing.
func TestEachExampleCanBeCopiedOut(t *testing.T) {
	if raceDetector {
		t.Skip("the compiler does the same with and without the race detector: see the run without")
	}
	repository, err := filepath.Abs("..")
	require.NoError(t, err)
	gomod, err := os.ReadFile("../examples/go.mod")
	require.NoError(t, err)
	gosum, err := os.ReadFile("../examples/go.sum")
	require.NoError(t, err)
	outside := strings.NewReplacer("module "+root+"/examples", "module example.org/copy", "=> ..", "=> "+repository).Replace(string(gomod))

	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go.mod"), []byte(outside), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go.sum"), gosum, 0o600))
	folders, err := os.ReadDir("../examples")
	require.NoError(t, err)
	for _, folder := range folders {
		if folder.IsDir() {
			require.NoError(t, os.CopyFS(filepath.Join(dir, folder.Name()), os.DirFS(filepath.Join("../examples", folder.Name()))))
		}
	}
	vet := exec.CommandContext(t.Context(), "go", "vet", "./...")
	vet.Dir = dir
	vet.Env = append(os.Environ(), "GOWORK=off")
	out, err := vet.CombinedOutput()
	require.NoError(t, err, "%s", out)
}
