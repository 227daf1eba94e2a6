package saga

import (
	"encoding/json"
	"time"
)

// Status says where an instance stands in its life.
type Status string

// The statuses of an instance. Completed, Compensated and Aborted are final; Stuck waits for a person.
const (
	Running      Status = "running"      // going forward
	Compensating Status = "compensating" // undoing what was done, last step first
	Completed    Status = "completed"    // every step is done
	Compensated  Status = "compensated"  // everything that was or may have been done is undone
	Stuck        Status = "stuck"        // neither way is left: see Runner.Retry, Skip, MarkDone and Abort
	Aborted      Status = "aborted"      // a person gave it up; what was done stays done
)

// Active reports whether runners still work on an instance of this status.
func (s Status) Active() bool { return s == Running || s == Compensating }

// Direction tells a step's Do from its Undo.
type Direction string

// The two directions.
const (
	Forward  Direction = "do"
	Backward Direction = "undo"
)

// Outcome is what became of one attempt or repair, as the history tells it.
type Outcome string

// The outcomes in a history.
const (
	Done        Outcome = "done"        // the step returned nil and its state was stored
	Failed      Outcome = "failed"      // it returned an error, or panicked; the attempt counts
	Rejected    Outcome = "rejected"    // it was refused locally and did not run; the attempt does not count
	Interrupted Outcome = "interrupted" // the node shut down meanwhile; the attempt does not count
	Waiting     Outcome = "waiting"     // the step began to wait for an event, a time or a child
	Omitted     Outcome = "omitted"     // the step's When said no
	TurnedBack  Outcome = "cancelled"   // Cancel, or the parent, turned the instance back
	Retried     Outcome = "retried"     // a person asked for another round of attempts
	Skipped     Outcome = "skipped"     // a person passed over the step
	MarkedDone  Outcome = "marked_done" // a person did the step by hand
	GivenUp     Outcome = "aborted"     // a person aborted the instance
)

// Ref names one version of a definition.
type Ref struct {
	Name    string
	Version int
}

// Progress is the part of an Instance that a transition replaces.
type Progress struct {
	// Status and Direction say which way the instance goes. A stuck one keeps the direction in which it got stuck.
	Status    Status
	Direction Direction
	// Step names the step that is being done or undone, or comes next; of an ended instance, the last one touched.
	Step string
	// Attempt counts the finished attempts at Step in Direction, including those cut short by the loss of a node.
	Attempt int
	// Rejected counts the attempts at Step that were refused locally. They lengthen the pauses but not the count.
	Rejected int
	// Doubt is set when an earlier attempt at Step may have had an effect nobody saw.
	Doubt bool
	// Cause is the error that turned the instance back; empty while it goes forward.
	Cause string
	// Error is the last error of Step; empty when it has not failed.
	Error string
	// Awaits is the event that the instance waits for, and Timer the end of its wait, counted from Created; 0 means that it
	// waits for as long as it takes. Both are empty unless it stands at a step that waits.
	Awaits string
	Timer  time.Duration
	// Marks tells what State does not: of steps that were left out, and of the branches of groups, as "group/branch",
	// and, under the empty name, of a repair that was ordered.
	Marks map[string]Mark
	// State is the JSON form of the saga's State after the last step that was recorded.
	State json.RawMessage
}

// Mark is what is remembered of a step that was left out, or of a branch.
type Mark struct {
	// Omitted is set for a step whose When said no.
	Omitted bool `json:"omitted,omitempty"`
	// Done is set when the branch's Do has returned its Result; Undone when its Undo has.
	Done   bool            `json:"done,omitempty"`
	Undone bool            `json:"undone,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
	// Attempt, Rejected, Doubt and Error are those of the branch's Do, as in Progress.
	Attempt  int    `json:"attempt,omitempty"`
	Rejected int    `json:"rejected,omitempty"`
	Doubt    bool   `json:"doubt,omitempty"`
	Error    string `json:"error,omitempty"`
	// Failed is set when no attempt is left.
	Failed bool `json:"failed,omitempty"`
	// Order is set in the mark of the empty name alone: Skipped, MarkedDone or GivenUp, a repair that was ordered where the
	// definition is not known and that the next node which knows it carries out.
	Order Outcome `json:"order,omitempty"`
}

// Instance is one saga as a Store keeps it. Everything a runner needs to go on is in it; times are the store's.
type Instance struct {
	// ID is the caller's name for the instance, unique in the store.
	ID string
	// Ref is the definition it was started with. Only runners that know exactly this version touch it.
	Ref
	Progress
	// Parent is the ID of the instance that waits for this one; empty for one that Start made.
	Parent string
	// Received holds the events that were sent to it, by name. None is ever removed.
	Received map[string]json.RawMessage
	// Owner is the runner that holds the lease; empty when nobody does.
	Owner string
	// Token is the fencing token. Every claim and every recorded change raises it by one; a heartbeat does not.
	Token int64
	// Due is when the instance may be claimed: the end of the pause, or of the lease while Owner is set. Zero when
	// the instance has ended or is stuck.
	Due time.Time
	// Created and Updated are the times of the first and of the latest change.
	Created, Updated time.Time
}

// Event is one line of an instance's history: an attempt that ended, or a repair.
type Event struct {
	// Step is the name of the step, or "group/branch".
	Step      string
	Direction Direction
	// Attempt is the number of the attempt, from 1; 0 for a repair, a wait or a step left out. A number that is missing was cut short by the loss of
	// a node, and one that appears again was not counted.
	Attempt int
	Outcome Outcome
	// Error is the text of the error, cut to 4 KiB; empty when there was none.
	Error string
	// Owner is the runner that made the attempt or took the repair.
	Owner string
	// Started and Ended are times of the store's clock. In a Transition they are the runner's, and the store keeps only
	// their difference: Ended becomes the time of the commit.
	Started, Ended time.Time
}
