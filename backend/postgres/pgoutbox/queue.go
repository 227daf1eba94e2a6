package pgoutbox

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/sqloutbox"
)

// Lease implements outbox.Queue, in one round trip, which is one transaction.
func (s *Store) Lease(ctx context.Context, owner string, ttl time.Duration) (outbox.Leases, error) {
	l := outbox.Leases{Owner: owner}
	var batch pgx.Batch
	batch.Queue(s.text.lockLeases) // relays that lease at the same time take turns here
	batch.Queue(s.text.bury, owner)
	batch.Queue(s.text.join, owner, ttl.Milliseconds())
	batch.Queue(s.text.share).QueryRow(func(row pgx.Row) error { return row.Scan(&l.Share) })
	batch.Queue(s.text.take, owner, ttl.Milliseconds()).Query(func(rows pgx.Rows) error {
		var bucket int
		var epoch int64
		_, err := pgx.ForEachRow(rows, []any{&bucket, &epoch}, func() error { l.Epochs[bucket] = epoch; return nil })
		return err
	})
	if err := s.pool.SendBatch(ctx, &batch).Close(); err != nil {
		return outbox.Leases{}, fmt.Errorf("pgoutbox: lease: %w", err)
	}
	return l, nil
}

// Release implements outbox.Queue, in one round trip, which is one transaction.
func (s *Store) Release(ctx context.Context, l outbox.Leases) error {
	var batch pgx.Batch
	batch.Queue(s.text.give, l.Owner, l.Epochs[:])
	batch.Queue(s.text.dead, l.Owner)
	if err := s.pool.SendBatch(ctx, &batch).Close(); err != nil {
		return fmt.Errorf("pgoutbox: release: %w", err)
	}
	return nil
}

// Backlog implements outbox.Queue. It counts up to 100 000 pending messages.
func (s *Store) Backlog(ctx context.Context) (outbox.Backlog, error) {
	var b outbox.Backlog
	var age int64
	if err := s.pool.QueryRow(ctx, s.text.backlog, planned, s.mark.now()).Scan(&b.Pending, &b.Parked, &age); err != nil {
		return b, fmt.Errorf("pgoutbox: backlog: %w", err)
	}
	b.OldestAge = time.Duration(max(age, 0)) * time.Millisecond
	return b, nil
}

// Fetch implements outbox.Queue.
func (s *Store) Fetch(ctx context.Context, l outbox.Leases, limit int) ([]outbox.Record, error) {
	return s.read(ctx, limit, s.text.fetch, int64(l.Mask()), limit)
}

// FetchExcept implements outbox.Prefetcher.
func (s *Store) FetchExcept(ctx context.Context, l outbox.Leases, inHand []outbox.Record, limit int) ([]outbox.Record, error) {
	first, last, others := longest(inHand)
	return s.read(ctx, limit, s.text.fetchExcept, int64(l.Mask()), limit, first, last, others)
}

// read fetches above the low-water mark, which is the first parameter.
func (s *Store) read(ctx context.Context, limit int, text string, args ...any) ([]outbox.Record, error) {
	low, err := s.lowWater(ctx)
	if err != nil {
		return nil, fmt.Errorf("pgoutbox: fetch: low-water mark: %w", err)
	}
	var records []outbox.Record
	var batch pgx.Batch // one round trip and one transaction
	batch.Queue(s.text.inOrder)
	batch.Queue(text, append([]any{low}, args...)...).Query(func(rows pgx.Rows) (err error) {
		records, err = collect(rows, limit)
		return err
	})
	if err := s.pool.SendBatch(ctx, &batch).Close(); err != nil {
		return nil, fmt.Errorf("pgoutbox: fetch: %w", err)
	}
	if len(records) > 0 {
		s.mark.seen(records[0].Seq)
	}
	return records, nil
}

// collect reads the records. All are scanned by way of one, which is then copied, since what is scanned into escapes to the heap.
func collect(rows pgx.Rows, limit int) (records []outbox.Record, err error) {
	var r outbox.Record
	var header string
	var sent int64
	m := &r.Message
	into := []any{&r.Seq, &r.Lane, &m.ID, &m.Topic, &m.Key, &header, &m.Payload, &sent, &r.Attempts}
	_, err = pgx.ForEachRow(rows, into, func() error {
		if records == nil {
			records = make([]outbox.Record, 0, min(limit, 1000)) // not for a look that finds nothing
		}
		m.Time = time.Unix(0, sent)
		m.Header, r.Fault = sqloutbox.DecodeHeader(header)
		records = append(records, r)
		return nil
	})
	return records, err
}

// planned has the server plan a statement each time it is executed. A plan that is kept, made while the table was small, would read all
// of it when it has grown.
const planned = pgx.QueryExecModeCacheDescribe

// Settle implements outbox.Queue, in one round trip, which is one transaction: the fencing check and the change that it protects are
// one statement.
func (s *Store) Settle(ctx context.Context, l outbox.Leases, published []outbox.Record, failed []outbox.Failure) error {
	if len(published)+len(failed) == 0 {
		return nil
	}
	var held int64 // a mask of buckets
	see := func(row pgx.Row) error { return row.Scan(&held) }
	var batch pgx.Batch
	batch.Queue(s.text.inOrder)
	if len(published) > 0 {
		first, last := runs(published)
		batch.Queue(s.text.remove, l.Owner, l.Epochs[:], first, last).QueryRow(see)
	}
	if len(failed) > 0 { // after the messages ahead of them in their lanes have gone
		batch.Queue(s.text.hold, append([]any{l.Owner, l.Epochs[:]}, columns(failed)...)...).QueryRow(see)
	}
	if err := s.pool.SendBatch(ctx, &batch).Close(); err != nil {
		return fmt.Errorf("pgoutbox: settle: %w", err)
	}
	refused := 0
	for _, r := range published {
		if held>>r.Bucket()&1 == 0 {
			refused++
		}
	}
	for _, f := range failed {
		if held>>f.Record.Bucket()&1 == 0 {
			refused++
		}
	}
	s.tidy(ctx)
	if refused > 0 {
		return fmt.Errorf("pgoutbox: settle: %d of %d messages: %w", refused, len(published)+len(failed), outbox.ErrFenced)
	}
	return nil
}

// runs are the stretches without a gap in the numbers of records: all numbers of a stretch are messages of records and can be no others, so that
// the server need not look up each. Relays that share the work have shorter ones.
func runs(records []outbox.Record) (first, last []int64) {
	seqs := make([]int64, len(records))
	for i, r := range records {
		seqs[i] = r.Seq
	}
	slices.Sort(seqs)
	for i, seq := range seqs {
		if i == 0 || seq != seqs[i-1]+1 {
			first, last = append(first, seq), append(last, seq)
		} else {
			last[len(last)-1] = seq
		}
	}
	return first, last
}

// longest is the longest of the runs of records, an empty one where there is none, and the numbers of the other records.
func longest(records []outbox.Record) (first, last int64, others []int64) {
	first, last = 1, 0
	starts, ends := runs(records)
	for i := range starts {
		if ends[i]-starts[i] >= last-first {
			first, last = starts[i], ends[i]
		}
	}
	for _, r := range records {
		if r.Seq < first || r.Seq > last {
			others = append(others, r.Seq)
		}
	}
	return first, last, others
}

// columns are the arrays of the holds to make.
func columns(failed []outbox.Failure) []any {
	n := len(failed)
	numbers, errs, parked := make([]int64, 4*n), make([]string, n), make([]bool, n)
	lanes, heads, attempts, delays := numbers[:n], numbers[n:2*n], numbers[2*n:3*n], numbers[3*n:]
	for i, f := range failed {
		lanes[i], heads[i], attempts[i] = f.Record.Lane, f.Record.Seq, int64(f.Record.Attempts)
		errs[i], delays[i], parked[i] = sqloutbox.ErrorText(f.Err), f.Delay.Milliseconds(), f.Parked
	}
	return []any{lanes, heads, attempts, errs, delays, parked}
}
