package cases

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Verdict is what became of a case.
type Verdict string

// The verdicts.
const (
	Pass          Verdict = "pass"
	Fail          Verdict = "fail"
	NotApplicable Verdict = "n/a"
)

// Result is one cell of the table.
type Result struct {
	Subject string  `json:"subject"`
	Case    string  `json:"case"`
	Verdict Verdict `json:"verdict"`
	Detail  string  `json:"detail,omitempty"` // why it is no pass

	ended bool // the child was ended by a race or a panic: not a matter of timing
}

const resultPrefix = "result: "

// Child is the main function of the child: it runs one case for one subject of a suite and prints the result.
func Child(suites []*Suite, subjectKey, caseID string) error {
	for _, s := range suites {
		for i, subject := range s.Subjects {
			if index := s.index(caseID); index >= 0 && subject.Key == subjectKey {
				return json.NewEncoder(&prefixed{}).Encode(s.verdict(i, index))
			}
		}
	}
	return fmt.Errorf("there is no subject %q with case %q", subjectKey, caseID)
}

// prefixed marks the result among what a library may print.
type prefixed struct{}

func (*prefixed) Write(data []byte) (int, error) {
	_, err := os.Stdout.WriteString(resultPrefix + string(data))
	return len(data), err
}

func (s *Suite) verdict(subject, index int) Result {
	result := Result{Subject: s.Subjects[subject].Key, Case: s.Cases[index].ID, Verdict: Pass}
	if err := s.judge[subject](index); err != nil {
		result.Verdict, result.Detail = Fail, err.Error()
		if _, ok := errors.AsType[Lack](err); ok {
			result.Verdict = NotApplicable
		}
	}
	return result
}

// Binaries are the child with and without the race detector.
type Binaries struct{ race, plain string }

// Build compiles the child and returns where; cleanup removes it. It runs the go command in the folder of this module or of the
// workspace, and needs a C compiler for the race detector.
func Build(ctx context.Context) (b Binaries, cleanup func(), err error) {
	dir, err := os.MkdirTemp("", "cases")
	if err != nil {
		return b, nil, err
	}
	cleanup = func() { _ = os.RemoveAll(dir) }
	b = Binaries{race: filepath.Join(dir, "race"), plain: filepath.Join(dir, "plain")}
	err = errors.Join(compile(ctx, "-race", "-o", b.race), compile(ctx, "-o", b.plain))
	if err != nil {
		cleanup()
		return b, nil, err
	}
	return b, cleanup, nil
}

func compile(ctx context.Context, flags ...string) error {
	args := append(append([]string{"build"}, flags...), "github.com/backstay-go/backstay/bench/cases/child")
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("building the child, %v: %w\n%s", flags, err, out)
	}
	return nil
}

// Run puts every subject through every case, two at a time, and returns the results by case and then by subject. A verdict
// other than that of an earlier run is tried again, alone and with a longer deadline, since a busy machine can be the reason.
func (s *Suite) Run(ctx context.Context, b Binaries) []Result {
	var results []Result
	for _, c := range s.Cases {
		for _, subject := range s.Subjects {
			results = append(results, Result{Subject: subject.Key, Case: c.ID})
		}
	}
	slots := make(chan struct{}, 2)
	var all sync.WaitGroup
	for i := range results {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			results[i] = s.inChild(ctx, b, results[i].Subject, results[i].Case, s.deadline)
		})
	}
	all.Wait()
	const tries = 4
	for i := range results {
		for try := 1; try <= tries && s.surprising(results[i]); try++ {
			results[i] = s.inChild(ctx, b, results[i].Subject, results[i].Case, time.Duration(try)*s.deadline)
		}
	}
	return results
}

// surprising reports whether another try may end differently: a failure that may be a matter of timing and that no earlier run
// has seen, or a pass where one has seen a failure, which may need its moment to show.
func (s *Suite) surprising(r Result) bool {
	expected := s.Expected(r.Subject, r.Case)
	if r.Verdict == Fail {
		return !r.ended && expected != Fail
	}
	return r.Verdict == Pass && expected == Fail && s.Explained(r.Subject, r.Case) == ""
}

// inChild runs one case and reads the verdict, or makes one of the way in which the child ended.
func (s *Suite) inChild(ctx context.Context, b Binaries, subject, id string, deadline time.Duration) Result {
	binary := b.race
	if s.Cases[s.index(id)].Plain {
		binary = b.plain
	}
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, subject, id)
	cmd.Env = append(os.Environ(), "GORACE=halt_on_error=1 atexit_sleep_ms=10")
	var out, problems strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &problems
	err := cmd.Run()
	failed := Result{Subject: subject, Case: id, Verdict: Fail, ended: true}
	switch {
	case ctx.Err() != nil:
		failed.Detail, failed.ended = fmt.Sprintf("hangs: killed after %s", deadline), false
	case strings.Contains(problems.String(), "WARNING: DATA RACE"):
		failed.Detail = "data race"
	case err != nil:
		failed.Detail = "the process dies" + lastWords(out.String(), problems.String())
	default:
		return parse(out.String(), failed)
	}
	return failed
}

func parse(out string, failed Result) Result {
	_, data, found := strings.Cut(out, resultPrefix)
	if !found {
		failed.Detail = "no result: " + out
		return failed
	}
	var result Result
	if err := json.Unmarshal([]byte(data), &result); err != nil {
		failed.Detail = err.Error()
		return failed
	}
	return result
}

// lastWords is what the child was about to do, and the first line of what it died of.
func lastWords(out, problems string) string {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	doing := strings.TrimPrefix(lines[len(lines)-1], "running: ")
	cause, _, _ := strings.Cut(problems, "\n")
	if doing != "" {
		doing = " in " + doing
	}
	return doing + ": " + cause
}
