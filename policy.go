package backstay

import (
	"context"
	"slices"
)

// Policy decides whether, when and how often an operation runs. The control types of this module have this method, and so may
// anything else.
//
// Do calls op zero or more times, never two at once and never after it has returned; it passes a context derived from its
// own; it lets panics and runtime.Goexit through after giving back what it holds; it returns nil only if the last op did. It
// is safe for concurrent use. policytest.Run checks all this.
type Policy interface {
	Do(ctx context.Context, op func(context.Context) error) error
}

// Chain returns policies as one, the first outermost. It is composed here, once: Do allocates nothing for the control types
// of this module. An empty chain just runs the operation. It panics on a nil policy.
func Chain(policies ...Policy) Policy {
	return &chain{run: WrapErr(runOperation, policies...), policies: append([]Policy(nil), policies...)}
}

type chain struct {
	run      func(context.Context, operation) error
	policies []Policy // for Wrap, which composes them anew round a typed function
}

type operation = func(context.Context) error

func runOperation(ctx context.Context, op operation) error { return op(ctx) }

// Policies lists what the chain is made of, for packages that compose policies round something else than a function.
func (c *chain) Policies() []Policy { return slices.Clone(c.policies) }

// Do runs op through the policies.
func (c *chain) Do(ctx context.Context, op func(context.Context) error) error { return c.run(ctx, op) }
