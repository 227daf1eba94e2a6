package outbox

import (
	"context"
	"math/bits"
	"time"

	"github.com/backstay-go/backstay/pubsub"
)

// Buckets is the number of parts into which the keys are hashed. Each part is leased to one relay at a time, so that at
// most this many relays share the work of one outbox.
const Buckets = 64

// Record is a message in the outbox.
type Record struct {
	// Seq is the place of the message in the order of its key, drawn by the store inside the caller's transaction. It is
	// zero until the record is stored.
	Seq int64
	// Lane is a hash of the key, or of the ID where the key is empty: order and failures concern one lane only.
	Lane int64
	// Attempts counts the failures that speak against this message.
	Attempts int
	// Message is what is published, with its ID and Time filled in.
	Message pubsub.Message
	// Fault is why the stored message cannot be read, nil as a rule. A relay parks it instead of publishing what is left of it.
	Fault error
}

// Bucket is the part that the record belongs to, from 0 to Buckets-1.
func (r Record) Bucket() int { return int(r.Lane & (Buckets - 1)) }

// Failure is a message that the publisher did not take.
type Failure struct {
	// Record is the message, with the attempts counted now.
	Record Record
	// Err is the publisher's answer, never nil.
	Err error
	// Parked tells that the message is given up and its key held until a person requeues or skips it.
	Parked bool
	// Delay is the time until the next attempt where it is not parked.
	Delay time.Duration
}

// Parked is a message that was given up; its key waits behind it.
type Parked struct {
	// Record is the message with its attempts.
	Record Record
	// Reason is the text of the last error.
	Reason string
	// Since is when it was parked, by the database's clock.
	Since time.Time
}

// Backlog is what waits in the store.
type Backlog struct {
	// Pending counts the messages not yet published, parked ones among them. A store may stop counting at 100 000.
	Pending int64
	// Parked counts the messages given up.
	Parked int64
	// OldestAge is how long the oldest pending message has waited, by the database's clock.
	OldestAge time.Duration
}

// Leases is what one relay holds: plain data, copied freely.
type Leases struct {
	// Owner names the relay's run; no two runs share one.
	Owner string
	// Epochs has the fencing number of each bucket held; zero means not held. The number grows whenever a bucket changes
	// hands.
	Epochs [Buckets]int64
	// Share is how many buckets the owner should hold now, given how many relays are alive.
	Share int
}

// Mask has bit i set where bucket i is held.
func (l Leases) Mask() uint64 {
	var mask uint64
	for bucket, epoch := range l.Epochs {
		if epoch != 0 {
			mask |= 1 << bucket
		}
	}
	return mask
}

// Count is how many buckets are held.
func (l Leases) Count() int { return bits.OnesCount64(l.Mask()) }

// surplus is the part of l above its share.
func (l Leases) surplus() Leases {
	extra := l.Count() - l.Share
	s := Leases{Owner: l.Owner}
	for bucket := Buckets - 1; bucket >= 0 && extra > 0; bucket-- {
		if l.Epochs[bucket] != 0 {
			s.Epochs[bucket] = l.Epochs[bucket]
			extra--
		}
	}
	return s
}

// without is l less the buckets of other.
func (l Leases) without(other Leases) Leases {
	for bucket, epoch := range other.Epochs {
		if epoch != 0 {
			l.Epochs[bucket] = 0
		}
	}
	return l
}

// Store puts messages into the caller's transaction. Tx is *sql.Tx, pgx.Tx or the like: exactly the transaction type, so that
// a plain connection does not compile. A Store is safe for concurrent use.
type Store[Tx any] interface {
	// Insert stores the records as part of tx, in as few statements as the database allows, drawing Seq in their order.
	Insert(ctx context.Context, tx Tx, records []Record) error
	// InTx begins a transaction, runs fn and commits; it rolls back when fn fails, panics or ends its goroutine. An error
	// of a commit whose outcome is unknown matches ErrInDoubt.
	InTx(ctx context.Context, fn func(ctx context.Context, tx Tx) error) error
}

// Queue is what a Relay needs of the store. All times are taken from the database's clock. It is safe for concurrent use and
// shared by any number of relays in any number of processes. One that is also a Prefetcher drains a backlog faster.
type Queue interface {
	// Lease makes owner known as alive for ttl, renews what it holds and nobody has taken, takes free and expired buckets while
	// it holds less than its share, each with a higher epoch than ever before, and returns what it holds. The share is Buckets
	// divided by the owners alive, rounded up. Lease takes nothing from the living: an owner above its share releases.
	Lease(ctx context.Context, owner string, ttl time.Duration) (Leases, error)
	// Release gives up the buckets of l that are still held under their epoch. An owner left with none is no longer alive.
	Release(ctx context.Context, l Leases) error
	// Fetch returns up to limit messages of the buckets in l, by Seq. Messages of a lane that is parked, or whose delay has
	// not passed, are left out: all of a lane, judged at one moment. A message that cannot be read is no error of Fetch, which would
	// stop all keys, but a record with a Fault. It changes nothing.
	Fetch(ctx context.Context, l Leases, limit int) ([]Record, error)
	// Settle removes what was published and records what failed, in one transaction. Records in a bucket that l no longer
	// holds under its epoch are left untouched, and the error then matches ErrFenced.
	Settle(ctx context.Context, l Leases, published []Record, failed []Failure) error
	// Backlog counts what waits.
	Backlog(ctx context.Context) (Backlog, error)
}

// Inspector is what a person needs for parked messages. Stores that can, have it. It is safe beside running relays.
type Inspector interface {
	// Parked lists up to limit parked messages with a Seq above after, by Seq.
	Parked(ctx context.Context, after int64, limit int) ([]Parked, error)
	// Requeue makes parked messages due again with no attempts counted and reports how many there were.
	Requeue(ctx context.Context, seqs ...int64) (int, error)
	// Skip deletes parked messages, so that their keys go on without them, and reports how many there were.
	Skip(ctx context.Context, seqs ...int64) (int, error)
	// Edit replaces Topic, Header and Payload of a parked message by those of m, whose other fields it ignores, and reports whether
	// there was such a message: 1 or 0. It stays parked until it is requeued. A topic or header that Message.Validate refuses is an error.
	Edit(ctx context.Context, seq int64, m pubsub.Message) (int, error)
}

// InboxStore remembers what was handled. It is safe for concurrent use.
type InboxStore[Tx any] interface {
	// InTx is as in Store.
	InTx(ctx context.Context, fn func(ctx context.Context, tx Tx) error) error
	// Claim records (consumer, id) in tx, to be kept for retention, and reports true; where it is recorded already it reports
	// false and the saved result. It waits for a transaction in progress that has claimed the same.
	Claim(ctx context.Context, tx Tx, consumer, id string, retention time.Duration) (first bool, result []byte, err error)
	// Save keeps the result of a claim made in tx.
	Save(ctx context.Context, tx Tx, consumer, id string, result []byte) error
	// Forget undoes a claim made in tx.
	Forget(ctx context.Context, tx Tx, consumer, id string) error
	// Clean deletes up to limit records whose retention has passed and reports how many.
	Clean(ctx context.Context, limit int) (int, error)
}
