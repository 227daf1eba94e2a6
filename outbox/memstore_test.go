package outbox_test

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/pubsub"
)

// memStore is the reference of the suite, and what the tests of time run on: it works in a synctest bubble.
type memStore struct {
	mu      sync.Mutex
	seq     int64
	records map[int64]outbox.Record
	stored  map[int64]time.Time
	holds   map[int64]*memHold // by lane
	buckets [outbox.Buckets]memLease
	relays  map[string]time.Time
	inbox   map[[2]string]*memClaim
	fail    func(method string) error
	calls   int
}

type memHold struct {
	seq      int64
	attempts int
	reason   string
	due      time.Time
	parked   time.Time
}

type memLease struct {
	owner   string
	epoch   int64
	expires time.Time
}

type memClaim struct {
	tx      *memTx // nil once committed
	ended   chan struct{}
	result  []byte
	expires time.Time
}

type memTx struct {
	records []outbox.Record
	claims  [][2]string
}

func newMemStore() *memStore {
	return &memStore{
		records: map[int64]outbox.Record{}, stored: map[int64]time.Time{}, holds: map[int64]*memHold{},
		relays: map[string]time.Time{}, inbox: map[[2]string]*memClaim{}, fail: func(string) error { return nil },
	}
}

// enter locks the store, or returns the error that the test planted for the method.
func (s *memStore) enter(ctx context.Context, method string) error {
	s.mu.Lock()
	s.calls++
	err := ctx.Err()
	if err == nil {
		err = s.fail(method)
	}
	if err != nil {
		s.mu.Unlock()
	}
	return err
}

func (s *memStore) InTx(ctx context.Context, fn func(context.Context, *memTx) error) error {
	tx := &memTx{}
	committed := false
	defer func() { s.end(tx, committed) }()
	if err := fn(ctx, tx); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	committed = true
	return nil
}

func (s *memStore) end(tx *memTx, committed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range tx.claims {
		c := s.inbox[key]
		if c == nil || c.tx != tx {
			continue
		}
		c.tx = nil
		close(c.ended)
		if !committed {
			delete(s.inbox, key)
		}
	}
	if committed {
		for _, r := range tx.records {
			s.records[r.Seq], s.stored[r.Seq] = r, time.Now()
		}
	}
}

func (s *memStore) Insert(ctx context.Context, tx *memTx, records []outbox.Record) error {
	if err := s.enter(ctx, "Insert"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	for _, r := range records {
		s.seq++
		r.Seq = s.seq
		tx.records = append(tx.records, r)
	}
	return nil
}

// epochs are the fencing numbers of all buckets.
func (s *memStore) epochs() (all [outbox.Buckets]int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, b := range s.buckets {
		all[i] = b.epoch
	}
	return all
}

func (s *memStore) Lease(ctx context.Context, owner string, ttl time.Duration) (outbox.Leases, error) {
	l := outbox.Leases{Owner: owner}
	if err := s.enter(ctx, "Lease"); err != nil {
		return l, err
	}
	defer s.mu.Unlock()
	now := time.Now()
	s.relays[owner] = now.Add(ttl)
	maps.DeleteFunc(s.relays, func(_ string, expires time.Time) bool { return !expires.After(now) })
	l.Share = (outbox.Buckets + len(s.relays) - 1) / len(s.relays)
	held := 0
	for i := range s.buckets {
		if b := &s.buckets[i]; b.owner == owner {
			b.expires, l.Epochs[i] = now.Add(ttl), b.epoch
			held++
		}
	}
	for i := range s.buckets {
		if b := &s.buckets[i]; b.owner != owner && !b.expires.After(now) && held < l.Share {
			*b = memLease{owner: owner, epoch: b.epoch + 1, expires: now.Add(ttl)}
			l.Epochs[i] = b.epoch
			held++
		}
	}
	return l, nil
}

func (s *memStore) holder(l outbox.Leases, bucket int) bool {
	b := s.buckets[bucket]
	return b.epoch != 0 && b.owner == l.Owner && b.epoch == l.Epochs[bucket]
}

func (s *memStore) Release(ctx context.Context, l outbox.Leases) error {
	if err := s.enter(ctx, "Release"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	left := 0
	for i := range s.buckets {
		if s.holder(l, i) {
			s.buckets[i].owner, s.buckets[i].expires = "", time.Time{}
		} else if s.buckets[i].owner == l.Owner {
			left++
		}
	}
	if left == 0 {
		delete(s.relays, l.Owner)
	}
	return nil
}

func (s *memStore) Fetch(ctx context.Context, l outbox.Leases, limit int) ([]outbox.Record, error) {
	return s.FetchExcept(ctx, l, nil, limit)
}

func (s *memStore) FetchExcept(ctx context.Context, l outbox.Leases, inHand []outbox.Record, limit int) ([]outbox.Record, error) {
	if err := s.enter(ctx, "Fetch"); err != nil {
		return nil, err
	}
	defer s.mu.Unlock()
	except := map[int64]bool{}
	for _, r := range inHand {
		except[r.Seq] = true
	}
	now := time.Now() // once: a delay that ends in between must not let a lane's second message through without its first
	var due []outbox.Record
	for _, seq := range slices.Sorted(maps.Keys(s.records)) {
		r := s.records[seq]
		h := s.holds[r.Lane]
		if l.Epochs[r.Bucket()] == 0 || h != nil && (!h.parked.IsZero() || h.due.After(now)) || len(due) == limit || except[seq] {
			continue
		}
		if h != nil && h.seq == seq {
			r.Attempts = h.attempts
		}
		due = append(due, r)
	}
	return due, nil
}

func (s *memStore) Settle(ctx context.Context, l outbox.Leases, published []outbox.Record, failed []outbox.Failure) error {
	if err := s.enter(ctx, "Settle"); err != nil {
		return err
	}
	defer s.mu.Unlock()
	var err error
	for _, r := range published {
		if !s.holder(l, r.Bucket()) {
			err = outbox.ErrFenced
			continue
		}
		delete(s.records, r.Seq)
		if h := s.holds[r.Lane]; h != nil && h.seq == r.Seq {
			delete(s.holds, r.Lane)
		}
	}
	for _, f := range failed {
		if !s.holder(l, f.Record.Bucket()) {
			err = outbox.ErrFenced
			continue
		}
		h := &memHold{seq: f.Record.Seq, attempts: f.Record.Attempts, reason: f.Err.Error(), due: time.Now().Add(f.Delay)}
		if f.Parked {
			h.parked = time.Now()
		}
		s.holds[f.Record.Lane] = h
	}
	return err
}

func (s *memStore) Backlog(ctx context.Context) (outbox.Backlog, error) {
	b := outbox.Backlog{}
	if err := s.enter(ctx, "Backlog"); err != nil {
		return b, err
	}
	defer s.mu.Unlock()
	b.Pending = int64(len(s.records))
	for _, h := range s.holds {
		if !h.parked.IsZero() {
			b.Parked++
		}
	}
	for seq := range s.records {
		b.OldestAge = max(b.OldestAge, time.Since(s.stored[seq]))
	}
	return b, nil
}

func (s *memStore) Parked(_ context.Context, after int64, limit int) ([]outbox.Parked, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []outbox.Parked
	for _, h := range s.holds {
		if r := s.records[h.seq]; !h.parked.IsZero() && h.seq > after {
			r.Attempts = h.attempts
			list = append(list, outbox.Parked{Record: r, Reason: h.reason, Since: h.parked})
		}
	}
	slices.SortFunc(list, func(a, b outbox.Parked) int { return cmp.Compare(a.Record.Seq, b.Record.Seq) })
	return list[:min(limit, len(list))], nil
}

func (s *memStore) Requeue(_ context.Context, seqs ...int64) (int, error) {
	return s.repair(seqs, false), nil
}

func (s *memStore) Skip(_ context.Context, seqs ...int64) (int, error) {
	return s.repair(seqs, true), nil
}

func (s *memStore) Edit(_ context.Context, seq int64, m pubsub.Message) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m.ID, m.Key = "", ""
	if err := m.Validate(); err != nil {
		return 0, err
	}
	for _, h := range s.holds {
		if h.seq == seq && !h.parked.IsZero() {
			r := s.records[seq]
			r.Message.Topic, r.Message.Header, r.Message.Payload = m.Topic, m.Header, m.Payload
			s.records[seq] = r
			return 1, nil
		}
	}
	return 0, nil
}

func (s *memStore) repair(seqs []int64, remove bool) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for lane, h := range s.holds {
		if h.parked.IsZero() || !slices.Contains(seqs, h.seq) {
			continue
		}
		delete(s.holds, lane)
		if remove {
			delete(s.records, h.seq)
		}
		n++
	}
	return n
}

func (s *memStore) Claim(ctx context.Context, tx *memTx, consumer, id string, retention time.Duration) (bool, []byte, error) {
	key := [2]string{consumer, id}
	for {
		s.mu.Lock()
		c := s.inbox[key]
		if c == nil {
			s.inbox[key] = &memClaim{tx: tx, ended: make(chan struct{}), expires: time.Now().Add(retention)}
			tx.claims = append(tx.claims, key)
			s.mu.Unlock()
			return true, nil, nil
		}
		known, result := c.tx == nil || c.tx == tx, c.result
		s.mu.Unlock()
		if known {
			return false, result, nil
		}
		select {
		case <-c.ended:
		case <-ctx.Done():
			return false, nil, ctx.Err()
		}
	}
}

func (s *memStore) Save(_ context.Context, _ *memTx, consumer, id string, result []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inbox[[2]string{consumer, id}].result = result
	return nil
}

func (s *memStore) Forget(_ context.Context, _ *memTx, consumer, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := [2]string{consumer, id}
	close(s.inbox[key].ended)
	delete(s.inbox, key)
	return nil
}

func (s *memStore) Clean(_ context.Context, limit int) (n int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, c := range s.inbox {
		if n < limit && c.tx == nil && !c.expires.After(time.Now()) {
			delete(s.inbox, key)
			n++
		}
	}
	return n, nil
}
