package memsaga

import (
	"cmp"
	"container/heap"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/backstay-go/backstay/saga"
)

// Store keeps sagas in memory. It is safe for concurrent use, never blocks and needs no closing; create it with New.
// Its calls fail only where ctx is done.
type Store struct {
	mu   sync.Mutex
	all  map[string]*record
	dues dues
}

var _ saga.Store = (*Store)(nil)

type record struct {
	in      saga.Instance
	history []saga.Event
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
	in.Token, in.Created, in.Updated, in.Due = 1, now, now, now
	in.State = slices.Clone(in.State)
	if in.Owner != "" {
		in.Due = now.Add(lease)
	}
	r := &record{in: in}
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
	var others []due
	for len(claimed) < c.Limit && len(s.dues) > 0 && !s.dues[0].at.After(now) {
		d := heap.Pop(&s.dues).(due)
		r := s.all[d.id]
		switch {
		case r == nil || !r.in.Due.Equal(d.at): // left from before its due time changed
		case !slices.Contains(c.Known, r.in.Ref):
			others = append(others, d)
		default:
			r.claim(c, now)
			s.schedule(r)
			claimed = append(claimed, r.copy())
		}
	}
	for _, d := range others {
		heap.Push(&s.dues, d)
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
	recorded := make([]bool, len(ts))
	for i, t := range ts {
		r := s.all[t.ID]
		if r == nil || r.in.Token != t.Token {
			continue
		}
		recorded[i] = true
		if was := r.in.Due; !r.apply(t, now).Equal(was) {
			s.schedule(r)
		}
	}
	return recorded, nil
}

// apply makes the change and returns the new due time.
func (r *record) apply(t saga.Transition, now time.Time) time.Time {
	in := &r.in
	in.Updated = now
	if t.Next != nil {
		in.Progress = *t.Next
		in.State = slices.Clone(in.State)
		in.Token++
	}
	switch {
	case t.Hold > 0:
		in.Due = now.Add(t.Hold)
	case !in.Status.Active():
		in.Owner, in.Due = "", time.Time{}
	case t.AfterLease:
		in.Owner = ""
	default:
		in.Owner, in.Due = "", now.Add(t.Wait)
	}
	if e := t.Event; e != nil {
		ended := *e
		ended.Started, ended.Ended = now.Add(e.Started.Sub(e.Ended)), now
		r.history = append(r.history, ended)
	}
	return in.Due
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
	return r.copy(), slices.Clone(r.history), nil
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
			found = append(found, r.copy())
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

// Purge deletes the instances that ended at least age ago, with their histories, and returns how many. Stuck ones stay.
func (s *Store) Purge(age time.Duration) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	before, n := time.Now().Add(-age), 0
	for id, r := range s.all {
		if ended := !r.in.Status.Active() && r.in.Status != saga.Stuck; ended && !r.in.Updated.After(before) {
			delete(s.all, id)
			n++
		}
	}
	return n
}

func (r *record) copy() saga.Instance {
	in := r.in
	in.State = slices.Clone(in.State)
	return in
}

// schedule notes when an instance becomes due. Earlier notes of it stay and are dropped when their time comes.
func (s *Store) schedule(r *record) {
	if !r.in.Due.IsZero() {
		heap.Push(&s.dues, due{r.in.Due, r.in.ID})
	}
}

type due struct {
	at time.Time
	id string
}

// dues is a heap of due times.
type dues []due

func (d dues) Len() int           { return len(d) }
func (d dues) Less(i, j int) bool { return d[i].at.Before(d[j].at) }
func (d dues) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }
func (d *dues) Push(x any)        { *d = append(*d, x.(due)) }
func (d *dues) Pop() any {
	last := (*d)[len(*d)-1]
	*d = (*d)[:len(*d)-1]
	return last
}
