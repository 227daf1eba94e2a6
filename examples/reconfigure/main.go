// Reconfigure keeps the settings of policies in a file: read and checked when the service starts, changed while it runs, and refused as a
// whole, every fault by name, when something in it is wrong.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/bulkhead"
	"github.com/backstay-go/backstay/retry"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// settings is the file. Each part is the plain data of one policy; what is left out means the documented default.
type settings struct {
	Retry    retry.Config    `json:"retry"`
	Breaker  breaker.Config  `json:"breaker"`
	Bulkhead bulkhead.Config `json:"bulkhead"`
}

func read(file string) (s settings, err error) {
	if err := json.Unmarshal([]byte(file), &s); err != nil {
		return s, err // an unknown field of a policy is one
	}
	return s, errors.Join(s.Retry.Validate(), s.Breaker.Validate(), s.Bulkhead.Validate())
}

const (
	atStart = `{"retry": {"name": "bank", "max_attempts": 2, "initial_interval": "1ms"},
		"breaker": {"name": "bank", "open_delay": "250ms"}, "bulkhead": {"name": "bank", "max_concurrent": 8}}`
	later = `{"retry": {"name": "bank", "max_attempts": 4, "initial_interval": "1ms"},
		"breaker": {"name": "bank", "mode": "force_open"}, "bulkhead": {"name": "bank", "max_concurrent": 2}}`
	faulty = `{"retry": {"multiplier": 0.5}, "breaker": {"mode": "maybe", "window": -1}, "bulkhead": {"max_concurrent": 2000000}}`
	typo   = `{"retry": {"max_atempts": 3}}`
)

// service has policies whose settings may change.
type service struct {
	retrier *retry.Retrier
	guard   *breaker.Breaker
	slots   *bulkhead.Bulkhead
}

// apply checks everything before it changes anything. Calls under way go on; what the policies have learnt is kept.
func (s *service) apply(file string) error {
	cfg, err := read(file)
	if err != nil {
		return err
	}
	return errors.Join(s.retrier.Reconfigure(cfg.Retry), s.guard.Reconfigure(cfg.Breaker), s.slots.Reconfigure(cfg.Bulkhead))
}

// run tells the story, and returns an error if it did not happen as told.
func run(ctx context.Context, out io.Writer) error {
	cfg, err := read(atStart)
	if err != nil {
		return err
	}
	s := &service{retry.New(cfg.Retry), breaker.New(cfg.Breaker), bulkhead.New(cfg.Bulkhead)}
	calls := 0
	charge := backstay.Wrap(func(context.Context, string) (string, error) {
		calls++
		return "", errors.New("connection refused")
	}, s.retrier, s.guard, s.slots)

	for _, step := range []struct {
		what, file string
		wantCalls  int
		wantErr    bool
	}{
		{what: "as started", wantCalls: 2},
		{what: "a file with faults", file: faulty, wantCalls: 2, wantErr: true},
		{what: "a file with a typing error", file: typo, wantCalls: 2, wantErr: true},
		{what: "a file that stops all calls to the bank", file: later, wantCalls: 0},
		{what: "the first file again: the breaker begins with one probe, which fails", file: atStart, wantCalls: 1},
	} {
		fmt.Fprintln(out, step.what)
		if step.file != "" {
			err := s.apply(step.file)
			if (err != nil) != step.wantErr {
				return fmt.Errorf("%s: %w", step.what, err)
			}
			if err != nil {
				fmt.Fprintf(out, "  refused: %v\n", err)
			}
		}
		calls = 0
		_, _ = charge(ctx, "tea") // it always fails
		fmt.Fprintf(out, "  max_attempts %d, breaker %s, max_concurrent %d: calls to the bank: %d\n",
			s.retrier.Config().MaxAttempts, s.guard.State(), s.slots.Config().MaxConcurrent, calls)
		if calls != step.wantCalls {
			return fmt.Errorf("%s: %d calls, want %d", step.what, calls, step.wantCalls)
		}
	}
	return nil
}
