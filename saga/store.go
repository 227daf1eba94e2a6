package saga

import (
	"context"
	"encoding/json"
	"time"
)

// Store keeps instances and their history. It is safe for concurrent use by many runners in many processes, and it
// alone tells the time: every duration handed to it counts from its own clock at that moment, so that runners with wrong
// clocks cannot take instances from each other. The sagatest package checks an implementation.
type Store interface {
	// Create stores a new instance, Parent included, with Token 1, Created and Updated set to now. It is due at once; if in.Owner is set,
	// that owner holds it for lease instead. It returns false, and changes nothing, when the ID is taken.
	Create(ctx context.Context, in Instance, lease time.Duration) (created bool, err error)
	// Claim hands the due instances that match c to c.Owner, longest due first, and raises their tokens; Updated is the time
	// of the claim. No instance is handed to two callers. One whose lease ran out, which its Owner shows, was cut short in an attempt: it is returned
	// and stored with Attempt one higher and Doubt set.
	Claim(ctx context.Context, c Claim) ([]Instance, error)
	// Commit records the transitions, each by itself if its token is still the instance's, and tells which it recorded:
	// false means that the instance is gone or has moved on. An error means that it is not known whether any was recorded.
	Commit(ctx context.Context, ts []Transition) (recorded []bool, err error)
	// Load returns an instance and its history, oldest first, or ErrNotFound.
	Load(ctx context.Context, id string) (Instance, []Event, error)
	// List returns the instances that match f, ordered by ID.
	List(ctx context.Context, f Filter) ([]Instance, error)
}

// Claim asks a Store for work.
type Claim struct {
	Owner string
	// Known lists the definitions the owner can run. Instances of others are left alone.
	Known []Ref
	// Limit is the most instances wanted, at least 1.
	Limit int
	// Lease is how long they are held.
	Lease time.Duration
}

// Transition is one fenced change of one instance.
type Transition struct {
	ID string
	// Token must be the instance's token, or the transition is refused.
	Token int64
	// Next replaces the instance's Progress and raises the token by one. Nil makes the transition a heartbeat, which
	// changes only the end of the lease and leaves the token.
	Next *Progress
	// Hold keeps the owner and sets the lease to end so long from now. Zero hands the lease back.
	Hold time.Duration
	// Wait makes an active instance that is handed back due so long from now.
	Wait time.Duration
	// AfterLease hands back an instance that another owner may still be working on: Due stays as it is, so that nobody
	// claims it before that owner has noticed. Wait is then ignored.
	AfterLease bool
	// Seen is how many received events the runner knew of. If Next.Awaits is set and there are more by now, Wait is ignored
	// and the instance due at once.
	Seen int
	// Event is added to the history, unless nil.
	Event *Event
	// Deliver adds an event to Received of an instance that has not ended, whoever holds it: Token and all other fields are
	// ignored and left alone. If the name is there already nothing changes, and it counts as recorded. Otherwise an instance
	// that nobody holds and whose Awaits is set becomes due at once.
	Deliver *Delivery
}

// Delivery is an event on its way to an instance.
type Delivery struct {
	Name string
	Data json.RawMessage
}

// TxStore is a Store that can run a step inside the transaction which records it: what Step.InTx takes.
type TxStore interface {
	Store
	// CommitInTx begins a transaction and calls fn with a context in which the step finds it. The transitions that fn returns
	// are recorded in the same transaction, as Commit would; recorded is false, and nothing has happened, when the token of
	// the first is no longer its instance's. After an error of fn nothing has happened and CommitInTx returns that error;
	// after any other error it is not known whether something has.
	CommitInTx(ctx context.Context, fn func(ctx context.Context) ([]Transition, error)) (recorded bool, err error)
}

// Purger is a Store that can delete what has ended: what Config.Retention takes.
type Purger interface {
	Store
	// Purge deletes up to limit instances that ended at least age ago, with their histories, and returns how many. It leaves those that
	// are stuck, and those whose parent has not ended: it may have to turn them back. Of callers at the same time each deletes others.
	Purge(ctx context.Context, age time.Duration, limit int) (int, error)
}

// Filter chooses instances. The zero value chooses all, in pages of the store's default size.
type Filter struct {
	// Definition keeps the instances of the definition of this name, any version; empty keeps all.
	Definition string
	// Statuses keeps the instances in one of these; empty keeps all.
	Statuses []Status
	// Except drops the instances of these definitions.
	Except []Ref
	// After starts the page after this ID; empty starts with the first.
	After string
	// Limit is the most instances returned; 0 means 100.
	Limit int
}
