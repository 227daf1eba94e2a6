// Own-policy adds a policy that the library does not have, a time of day at which a partner may be called, and composes it with the
// library's own. Its settings are data like theirs: JSON, defaults, and every fault reported at once.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/backstay-go/backstay"
	"github.com/backstay-go/backstay/configdata"
	"github.com/backstay-go/backstay/retry"
)

func main() {
	if err := run(context.Background(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// Config sets up Hours. Midnight to midnight is the default.
type Config struct {
	Name  string        `json:"name"`
	Open  time.Duration `json:"open"`  // since midnight
	Close time.Duration `json:"close"` // since midnight; 0 means 24h
}

// MarshalJSON and UnmarshalJSON give it the form of every Config: snake_case, "9h0m0s", and no unknown fields.
func (c Config) MarshalJSON() ([]byte, error) { return configdata.Marshal(c) }

func (c *Config) UnmarshalJSON(data []byte) error { return configdata.Unmarshal(data, c) }

// Validate reports all that is wrong, by field and value.
func (c Config) Validate() error {
	f := configdata.Check("hours", c.Name)
	end := configdata.Default(c.Close, 24*time.Hour)
	f.Require(c.Open >= 0 && c.Open < 24*time.Hour, "open", c.Open, "at least 0 and less than 24h")
	f.Require(end > c.Open && end <= 24*time.Hour, "close", c.Close, "after open and at most 24h")
	return f.Err()
}

// Hours lets calls pass between two times of the day.
type Hours struct {
	cfg Config
	now func() time.Duration // since midnight
}

// Closed is the rejection. By Rejected the other policies know that nothing was sent: no breaker counts it, nobody repeats it.
type Closed struct{ Name string }

func (e *Closed) Error() string  { return fmt.Sprintf("hours %q: closed", e.Name) }
func (e *Closed) Rejected() bool { return true }

// Do runs op, once, on the caller's goroutine: that is all it takes to be a Policy. Package policytest checks it; see main_test.go.
func (h *Hours) Do(ctx context.Context, op func(context.Context) error) error {
	if now := h.now(); now < h.cfg.Open || now >= configdata.Default(h.cfg.Close, 24*time.Hour) {
		return &Closed{h.cfg.Name}
	}
	return op(ctx)
}

// run tells the story, and returns an error if it did not happen as told.
func run(ctx context.Context, out io.Writer) error {
	var cfg Config
	if err := cfg.UnmarshalJSON([]byte(`{"name": "customs", "open": "25h", "close": "-1h"}`)); err != nil {
		return err
	}
	fmt.Fprintf(out, "faults: %v\n", cfg.Validate())
	if err := cfg.UnmarshalJSON([]byte(`{"name": "customs", "open": "9h", "close": "17h"}`)); err != nil {
		return err
	}
	if err := cfg.Validate(); err != nil {
		return err
	}

	var now time.Duration
	hours := &Hours{cfg: cfg, now: func() time.Duration { return now }}
	attempts := 0
	declare := backstay.Wrap(func(_ context.Context, parcel string) (string, error) {
		if attempts++; attempts == 1 {
			return "", errors.New("the line is busy")
		}
		return parcel + " is declared", nil
	}, retry.New(retry.Config{Name: "customs", InitialInterval: time.Millisecond}), hours)

	for _, now = range []time.Duration{8 * time.Hour, 10 * time.Hour, 18 * time.Hour} {
		before := attempts
		answer, err := declare(ctx, "tea")
		if err != nil {
			answer = err.Error()
		}
		fmt.Fprintf(out, "at %2.0f o'clock: %s, after %d attempts\n", now.Hours(), answer, attempts-before)
		var closed *Closed
		if open := now == 10*time.Hour; open == errors.As(err, &closed) {
			return fmt.Errorf("at %v: %w", now, err)
		}
	}
	if attempts != 2 {
		return fmt.Errorf("%d attempts, want 2", attempts)
	}
	return nil
}
