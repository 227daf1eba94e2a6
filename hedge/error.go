package hedge

import (
	"fmt"
	"time"

	"github.com/backstay-go/backstay/internal/failure"
)

// Error says that both calls failed. It answers errors.Is for both causes.
type Error struct {
	Name   string // of the Hedge
	First  error  // what the first call returned
	Second error  // what the second call returned
}

// Error gives both causes.
func (e *Error) Error() string {
	return fmt.Sprintf("hedge %q: %v; second call: %v", e.Name, e.First, e.Second)
}

// Unwrap returns First and Second.
func (e *Error) Unwrap() []error { return []error{e.First, e.Second} }

// Permanent reports whether either cause says so: the two calls are the same.
func (e *Error) Permanent() bool { return failure.Permanent(e.First) || failure.Permanent(e.Second) }

// RetryAfter is the longer of what the causes ask for.
func (e *Error) RetryAfter() time.Duration {
	return max(failure.RetryAfter(e.First), failure.RetryAfter(e.Second))
}

// Panic is what a caller recovers when its function panicked, which it does on a goroutine of its own.
type Panic struct {
	Value any    // what the function panicked with
	Stack []byte // of the goroutine that panicked
}

// Error gives the value and the stack.
func (p *Panic) Error() string { return fmt.Sprintf("hedge: panic: %v\n\n%s", p.Value, p.Stack) }

// Unwrap returns Value if it is an error.
func (p *Panic) Unwrap() error {
	err, _ := p.Value.(error)
	return err
}
