package resilience

import (
	"context"
	"fmt"
	"slices"
)

// layers are compositions of two policies of a library.
type layers struct {
	// breakerOverFull is a breaker that one failure opens, round a bulkhead that is full.
	breakerOverFull func() circuit
	// retryOverOpen is a retrier of three attempts with 30 ms between, round an open breaker; tries counts how often it got there.
	retryOverOpen func() (run runner, tries func() int)
}

func deriveTwice(s *subject) error {
	if s.derive == nil {
		return noCompose
	}
	first, second := s.derive()
	if !slices.Equal(first, []string{"base", "first"}) || !slices.Equal(second, []string{"base", "second"}) {
		return fmt.Errorf("base+first runs %v, base+second runs %v", first, second)
	}
	return nil
}

func localRejection(s *subject) error {
	if s.layers == nil {
		return noCompose
	}
	c := s.layers.breakerOverFull()
	for range 5 {
		_ = c.do(context.Background(), func() error { return nil })
	}
	if state := c.state(); state != "closed" {
		return fmt.Errorf("a full bulkhead makes the breaker %s", state)
	}
	run, tries := s.layers.retryOverOpen()
	_ = run(context.Background(), func(context.Context) error { return nil })
	if n := tries(); n != 1 {
		return fmt.Errorf("an open breaker was tried %d times", n)
	}
	return nil
}
