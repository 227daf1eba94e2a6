package cases_test

import (
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/bench/cases"
	"github.com/backstay-go/backstay/bench/cases/caches"
	"github.com/backstay-go/backstay/bench/cases/resilience"
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

func suites() []*cases.Suite { return []*cases.Suite{resilience.Suite(), caches.Suite()} }

// TestEveryVerdictIsExplained runs the tables: this library passes every case, and where a peer's verdict is not that of the earlier
// run there is a reason on record.
func TestEveryVerdictIsExplained(t *testing.T) {
	if testing.Short() {
		t.Skip("the tables take minutes: run this again without -short")
	}
	if raceDetector {
		t.Skip("the cases run in children of their own, most of them with the race detector in any case: see the run without")
	}
	needsCompiler(t)
	binaries, cleanup, err := cases.Build(t.Context())
	require.NoError(t, err)
	defer cleanup()
	for _, s := range suites() {
		t.Run(s.Area, func(t *testing.T) {
			results := s.Run(t.Context(), binaries)
			require.Len(t, results, len(s.Cases)*len(s.Subjects))
			for _, r := range results {
				explained(t, s, r)
			}
		})
	}
}

func explained(t *testing.T, s *cases.Suite, r cases.Result) {
	t.Helper()
	if r.Subject == "backstay" {
		require.Equal(t, cases.Pass, r.Verdict, "%s: %s", r.Case, r.Detail)
		return
	}
	if expected := s.Expected(r.Subject, r.Case); expected != "" && expected != r.Verdict {
		require.NotEmpty(t, s.Explained(r.Subject, r.Case), "%s %s: %s, earlier %s: %s", r.Subject, r.Case, r.Verdict, expected, r.Detail)
	}
	if r.Verdict != cases.Pass {
		require.NotEmpty(t, r.Detail)
	}
}

func TestTheChildRefusesWhatItDoesNotKnow(t *testing.T) {
	require.EqualError(t, cases.Child(suites(), "nobody", "T01"), `there is no subject "nobody" with case "T01"`)
	require.EqualError(t, cases.Child(suites(), "otter", "T01"), `there is no subject "otter" with case "T01"`)
}
