package policyhttp

import "context"

// lifeline is the context of an attempt inside a foreign policy that derived its own: such a policy cancels that as soon as the
// headers are there, but the body is still to be read. It ends with the context outside the policy, at the policy's deadline,
// or when the body ends; and until the response is handed over also when the policy cancels for a reason of its own.
type lifeline struct {
	context.Context
	cancel context.CancelFunc
	policy context.Context
	values context.Context // the policy's, without what would make it our parent
	stop   func() bool     // cuts the tie to the policy
}

// newLifeline returns nil where the policy made no context that could end on its own.
func newLifeline(policy, outer context.Context) *lifeline {
	if policy.Done() == outer.Done() {
		return nil
	}
	l := &lifeline{policy: policy, values: context.WithoutCancel(policy)}
	deadline, timed := policy.Deadline()
	if timed {
		l.Context, l.cancel = context.WithDeadline(outer, deadline)
	} else {
		l.Context, l.cancel = context.WithCancel(outer)
	}
	l.stop = context.AfterFunc(policy, func() {
		if outer.Err() == nil && (!timed || policy.Err() != context.DeadlineExceeded) { // else that speaks for itself
			l.cancel()
		}
	})
	return l
}

// Value looks at the policy's values first, the caller's being among them.
func (l *lifeline) Value(key any) any {
	if value := l.values.Value(key); value != nil {
		return value
	}
	return l.Context.Value(key)
}

// await returns once the policy knows of its deadline too, if that is what ended the attempt: both timers fire at the same
// moment, in any order, and the policy has to recognise the error as its own.
func (l *lifeline) await() {
	if l.Err() == context.DeadlineExceeded {
		<-l.policy.Done()
	}
}

// End ends the context. The policy judges no error of the body.
func (l *lifeline) End(err error) error {
	l.cancel()
	return err
}
