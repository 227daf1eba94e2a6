package cases_test

import (
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/bench/cases"
)

// needsCompiler skips where the children cannot be built.
func needsCompiler(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("cc"); err == nil {
		return
	}
	const message = "the race detector needs a C compiler: install gcc or clang and run this again"
	require.NotEqual(t, "1", os.Getenv("BACKSTAY_REQUIRE_SERVICES"), message)
	t.Skip(message)
}

// TestEveryVerdictIsExplained runs the whole table: this library passes every case, and where a peer's verdict is not that of the
// earlier run there is a reason on record.
func TestEveryVerdictIsExplained(t *testing.T) {
	if testing.Short() {
		t.Skip("the table takes half a minute: run this again without -short")
	}
	needsCompiler(t)
	binary, cleanup, err := cases.Build(t.Context())
	require.NoError(t, err)
	defer cleanup()
	results := cases.Run(t.Context(), binary)
	require.Len(t, results, len(cases.All())*len(cases.Subjects()))
	for _, r := range results {
		if r.Subject == "backstay" {
			require.Equal(t, cases.Pass, r.Verdict, "%s: %s", r.Case, r.Detail)
			continue
		}
		if expected := cases.Expected(r.Subject, r.Case); expected != "" && expected != r.Verdict {
			require.NotEmpty(t, cases.Explained(r.Subject, r.Case), "%s %s: %s, earlier %s: %s", r.Subject, r.Case, r.Verdict, expected, r.Detail)
		}
		if r.Verdict != cases.Pass {
			require.NotEmpty(t, r.Detail)
		}
	}
}

func TestTheChildRefusesWhatItDoesNotKnow(t *testing.T) {
	require.EqualError(t, cases.Child("nobody", "T01"), `there is no subject "nobody" with case "T01"`)
}
