package policyhttp

import "context"

// lifeline is the context that an attempt is sent with when a policy derived its own: a timeout cancels that as soon as the
// headers are there, but the body is still to be read. It ends with the caller's context, at the policy's deadline, or when
// the body ends; and until the response is handed over also when a foreign policy cancels for a reason of its own.
type lifeline struct {
	context.Context
	cancel context.CancelFunc
	policy context.Context
	values context.Context // the policy's, without what would make it our parent
	stop   func() bool     // cuts the tie to a foreign policy; nil where there is none
}

// newLifeline returns nil where no policy made a context that could end on its own. The module's own policies end theirs at the
// deadline only, so that there is no need to wait for them.
func newLifeline(policy, caller context.Context, foreign bool) *lifeline {
	if policy == caller || foreign && policy.Done() == caller.Done() {
		return nil
	}
	deadline, timed := policy.Deadline()
	if !timed && !foreign {
		return nil
	}
	l := &lifeline{policy: policy, values: context.WithoutCancel(policy)}
	if timed {
		l.Context, l.cancel = context.WithDeadline(caller, deadline)
	} else {
		l.Context, l.cancel = context.WithCancel(caller)
	}
	if foreign {
		l.stop = context.AfterFunc(policy, func() {
			if caller.Err() == nil && (!timed || policy.Err() != context.DeadlineExceeded) { // else that speaks for itself
				l.cancel()
			}
		})
	}
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
	if l != nil && l.Err() == context.DeadlineExceeded {
		<-l.policy.Done()
	}
}

// handOver cuts the tie to the policy, which is over at the headers.
func (l *lifeline) handOver() {
	if l.stop != nil {
		l.stop()
	}
}

// end releases everything.
func (l *lifeline) end() {
	if l != nil {
		l.cancel()
		l.handOver()
	}
}
