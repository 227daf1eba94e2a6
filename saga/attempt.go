package saga

import "context"

// Attempt tells a running Do or Undo what it belongs to.
type Attempt struct {
	// Definition, Version and ID name the instance.
	Definition string
	Version    int
	ID         string
	// Step and Direction name the function.
	Step      string
	Direction Direction
	// Number is the number of the attempt, from 1.
	Number int
}

// Key is the idempotency key of this direction of the step: the same over all attempts, nodes and restarts.
func (a Attempt) Key() string { return a.ID + "/" + a.Step + "/" + string(a.Direction) }

// DoKey is the key that the step's Do has or had. An Undo finds by it the effect of a Do whose answer was lost.
func (a Attempt) DoKey() string { return a.ID + "/" + a.Step + "/" + string(Forward) }

type attemptKey struct{}

// Current returns the attempt that ctx belongs to, and false outside of a step.
func Current(ctx context.Context) (Attempt, bool) {
	a, ok := ctx.Value(attemptKey{}).(Attempt)
	return a, ok
}

// IdempotencyKey is the Key of the attempt that ctx belongs to: "<id>/<step>/do" or "<id>/<step>/undo". It is empty
// outside of a step. Hand it to every system that the step calls.
func IdempotencyKey(ctx context.Context) string {
	if a, ok := Current(ctx); ok {
		return a.Key()
	}
	return ""
}
