package memsaga

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/backstay-go/backstay/saga"
)

// Store keeps sagas in memory. It is safe for concurrent use, never blocks and needs no closing; create it with New. The
// states, events, maps and histories that it is given and returns are shared, and must not be changed.
// Its calls fail only where ctx is done.
type Store struct {
	mu   sync.Mutex
	all  map[string]*record
	dues dues
}

var _ saga.Purger = (*Store)(nil)

type record struct {
	in      saga.Instance
	history []saga.Event
	pos     int // in dues, from 1; 0 where it is not
	first   [4]saga.Event
}

// New makes an empty store.
func New() *Store { return &Store{all: map[string]*record{}} }

// Create implements saga.Store.
func (s *Store) Create(ctx context.Context, in saga.Instance, lease time.Duration) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if s.all[in.ID] != nil {
		return false, nil
	}
	now := time.Now()
	r := &record{in: in}
	r.in.Token, r.in.Created, r.in.Updated, r.in.Due = 1, now, now, now
	if in.Owner != "" {
		r.in.Due = now.Add(lease)
	}
	r.history = r.first[:0]
	s.all[in.ID] = r
	s.schedule(r)
	return true, nil
}

// Claim implements saga.Store.
func (s *Store) Claim(ctx context.Context, c saga.Claim) ([]saga.Instance, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	now := time.Now()
	var claimed []saga.Instance
	var others []*record
	for len(claimed) < c.Limit && len(s.dues) > 0 && !s.dues[0].in.Due.After(now) {
		r := s.dues[0]
		if !slices.Contains(c.Known, r.in.Ref) {
			s.remove(r)
			others = append(others, r)
			continue
		}
		r.claim(c, now)
		s.schedule(r)
		claimed = append(claimed, r.in)
	}
	for _, r := range others {
		s.schedule(r)
	}
	return claimed, nil
}

func (r *record) claim(c saga.Claim, now time.Time) {
	if r.in.Owner != "" {
		r.in.Attempt++
		r.in.Doubt = true
	}
	r.in.Owner = c.Owner
	r.in.Token++
	r.in.Due, r.in.Updated = now.Add(c.Lease), now
}

// Commit implements saga.Store.
func (s *Store) Commit(ctx context.Context, ts []saga.Transition) ([]bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	now := time.Now()
	if len(ts) == 1 && s.record(&ts[0], now) {
		return yes, nil
	}
	recorded := make([]bool, len(ts))
	for i := range ts {
		recorded[i] = len(ts) > 1 && s.record(&ts[i], now)
	}
	return recorded, nil
}

// yes is the answer to a single transition that was recorded, which is nearly every one. Nobody writes to it.
var yes = []bool{true}

func (s *Store) record(t *saga.Transition, now time.Time) bool {
	if !s.fits(t) {
		return false
	}
	r := s.all[t.ID]
	r.apply(t, now)
	s.schedule(r)
	return true
}

// fits reports whether a transition is to be recorded.
func (s *Store) fits(t *saga.Transition) bool {
	r := s.all[t.ID]
	if r == nil || t.Deliver != nil {
		return r != nil && (r.in.Status.Active() || r.in.Status == saga.Stuck)
	}
	return r.in.Token == t.Token
}

func (r *record) apply(t *saga.Transition, now time.Time) {
	in := &r.in
	if t.Deliver != nil {
		r.receive(*t.Deliver, now)
		return
	}
	in.Updated = now
	if t.Next != nil {
		in.Progress = *t.Next
		in.Token++
	}
	switch {
	case t.Hold > 0:
		in.Due = now.Add(t.Hold)
	case !in.Status.Active():
		in.Owner, in.Due = "", time.Time{}
	case t.AfterLease:
		in.Owner = ""
	case in.Awaits != "" && len(in.Received) > t.Seen:
		in.Owner, in.Due = "", now
	default:
		in.Owner, in.Due = "", now.Add(t.Wait)
	}
	if e := t.Event; e != nil {
		r.history = append(r.history, *e)
		last := &r.history[len(r.history)-1]
		last.Started, last.Ended = now.Add(e.Started.Sub(e.Ended)), now
	}
}

// receive keeps an event. The map that was handed out before is left as it is.
func (r *record) receive(d saga.Delivery, now time.Time) {
	if _, twice := r.in.Received[d.Name]; twice {
		return
	}
	received := maps.Clone(r.in.Received)
	if received == nil {
		received = map[string]json.RawMessage{}
	}
	received[d.Name] = d.Data
	r.in.Received = received
	if r.in.Awaits != "" && r.in.Owner == "" && r.in.Status.Active() {
		r.in.Due = now
	}
}

// Load implements saga.Store.
func (s *Store) Load(ctx context.Context, id string) (saga.Instance, []saga.Event, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return saga.Instance{}, nil, err
	}
	r := s.all[id]
	if r == nil {
		return saga.Instance{}, nil, saga.ErrNotFound
	}
	return r.in, slices.Clip(r.history), nil
}

// List implements saga.Store.
func (s *Store) List(ctx context.Context, f saga.Filter) ([]saga.Instance, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var found []saga.Instance
	for id, r := range s.all {
		if id > f.After && matches(r.in, f) {
			found = append(found, r.in)
		}
	}
	slices.SortFunc(found, func(a, b saga.Instance) int { return cmp.Compare(a.ID, b.ID) })
	if limit := cmp.Or(f.Limit, 100); len(found) > limit {
		found = found[:limit]
	}
	return found, nil
}

func matches(in saga.Instance, f saga.Filter) bool {
	return (f.Definition == "" || in.Name == f.Definition) &&
		(len(f.Statuses) == 0 || slices.Contains(f.Statuses, in.Status)) &&
		!slices.Contains(f.Except, in.Ref)
}

// Purge implements saga.Purger.
func (s *Store) Purge(ctx context.Context, age time.Duration, limit int) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	before, n := time.Now().Add(-age), 0
	for id, r := range s.all {
		if n == limit {
			break
		}
		if parent := s.all[r.in.Parent]; r.ended() && !r.in.Updated.After(before) && (parent == nil || parent.ended()) {
			delete(s.all, id)
			n++
		}
	}
	return n, nil
}

func (r *record) ended() bool { return !r.in.Status.Active() && r.in.Status != saga.Stuck }

// schedule puts an instance where its due time belongs.
func (s *Store) schedule(r *record) {
	switch {
	case r.in.Due.IsZero():
		s.remove(r)
	case r.pos == 0:
		s.dues = append(s.dues, r)
		r.pos = len(s.dues)
		s.dues.up(r)
	default:
		s.dues.up(r)
		s.dues.down(r)
	}
}

func (s *Store) remove(r *record) {
	if r.pos == 0 {
		return
	}
	last := s.dues[len(s.dues)-1]
	s.dues.swap(r, last)
	s.dues[len(s.dues)-1] = nil
	s.dues = s.dues[:len(s.dues)-1]
	r.pos = 0
	if last != r {
		s.dues.up(last)
		s.dues.down(last)
	}
}

// dues is a heap of records, the earliest first, which know their places.
type dues []*record

func (d dues) swap(a, b *record) {
	a.pos, b.pos = b.pos, a.pos
	d[a.pos-1], d[b.pos-1] = a, b
}

func (d dues) up(r *record) {
	for r.pos > 1 && r.in.Due.Before(d[r.pos/2-1].in.Due) {
		d.swap(r, d[r.pos/2-1])
	}
}

func (d dues) down(r *record) {
	for 2*r.pos <= len(d) {
		child := d[2*r.pos-1]
		if 2*r.pos < len(d) && d[2*r.pos].in.Due.Before(child.in.Due) {
			child = d[2*r.pos]
		}
		if !child.in.Due.Before(r.in.Due) {
			return
		}
		d.swap(r, child)
	}
}
