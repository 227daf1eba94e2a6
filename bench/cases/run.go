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

	ended bool // the child was ended by a race, a panic or its deadline: not a matter of timing
}

// Subjects returns the libraries, this one first.
func Subjects() []*Subject {
	return []*Subject{ours(), failsafeGo(), goBreaker(), sethvargoRetry(), avastRetry(), backoffV4(), xSync(), xTime()}
}

// deadline is what a case may take: the longest takes three seconds where everything goes well.
const deadline = 15 * time.Second

const resultPrefix = "result: "

// Child is the main function of the child: it runs one case for one subject and prints the result.
func Child(subjectKey, caseID string) error {
	for _, s := range Subjects() {
		for _, c := range All() {
			if s.Key == subjectKey && c.ID == caseID {
				return json.NewEncoder(&prefixed{}).Encode(judge(s, c))
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

func judge(s *Subject, c Case) Result {
	result := Result{Subject: s.Key, Case: c.ID, Verdict: Pass}
	if err := c.run(s); err != nil {
		result.Verdict, result.Detail = Fail, err.Error()
		if _, ok := errors.AsType[notApplicable](err); ok {
			result.Verdict = NotApplicable
		}
	}
	return result
}

// Build compiles the child with the race detector and returns its path; cleanup removes it. It runs the go command in the folder of
// this module or of the workspace, and needs a C compiler.
func Build(ctx context.Context) (binary string, cleanup func(), err error) {
	dir, err := os.MkdirTemp("", "cases")
	if err != nil {
		return "", nil, err
	}
	cleanup = func() { _ = os.RemoveAll(dir) }
	binary = filepath.Join(dir, "child")
	cmd := exec.CommandContext(ctx, "go", "build", "-race", "-o", binary, "github.com/backstay-go/backstay/bench/cases/child")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		cleanup()
		return "", nil, fmt.Errorf("building the child with the race detector: %w\n%s", err, out)
	}
	return binary, cleanup, nil
}

// Run puts every subject through every case, two at a time, and returns the results by case and then by subject. A failure
// that no earlier run has seen is tried once more, alone, since a busy machine can be the reason.
func Run(ctx context.Context, binary string) []Result {
	var results []Result
	for _, c := range All() {
		for _, s := range Subjects() {
			results = append(results, Result{Subject: s.Key, Case: c.ID})
		}
	}
	slots := make(chan struct{}, 2)
	var all sync.WaitGroup
	for i := range results {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			results[i] = inChild(ctx, binary, results[i].Subject, results[i].Case)
		})
	}
	all.Wait()
	for i, r := range results {
		if r.Verdict == Fail && !r.ended && Expected(r.Subject, r.Case) != Fail {
			results[i] = inChild(ctx, binary, r.Subject, r.Case)
		}
	}
	return results
}

// inChild runs one case and reads the verdict, or makes one of the way in which the child ended.
func inChild(ctx context.Context, binary, subject, id string) Result {
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
		failed.Detail = fmt.Sprintf("hangs: killed after %s", deadline)
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
