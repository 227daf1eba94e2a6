package pgoutbox

import (
	"context"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// mark is the low-water mark: no row has a number at or below it, or ever will, short of a sequence that is set back.
//
// A row may appear below the numbers that are visible only if its transaction had drawn its number and not yet ended. Such
// a transaction holds a RowExclusiveLock on the table from before it draws until it has ended, visibly. So: read the last number drawn, then
// list who holds that lock; once all of them have ended, nothing new can appear at or below that number.
type mark struct {
	mu      sync.Mutex
	every   time.Duration // how often it is moved while messages are settled
	low     int64
	looked  time.Time
	full    time.Time // when a fetch last looked below the mark
	bound   int64     // a number drawn
	writers map[string]bool
}

// lowWater is the number above which the next fetch looks. The mark is moved by tidy; a fetch moves it only where nothing has been settled for
// long, as in a relay that idles beside others, because a message may be waiting for that fetch.
func (s *Store) lowWater(ctx context.Context) (int64, error) {
	m := &s.mark
	if s.config.Rescan < 0 {
		return 0, nil
	}
	if m.rescan(s.config.Rescan) {
		return 0, nil
	}
	if low, due := m.due(10 * m.every); due {
		return s.raise(ctx, low)
	}
	return m.now(), nil
}

// tidy moves the mark when that is due, now that messages have gone and nobody waits. An error is for the fetch that meets it.
func (s *Store) tidy(ctx context.Context) {
	if s.config.Rescan < 0 {
		return
	}
	if low, due := s.mark.due(s.mark.every); due {
		_, _ = s.raise(ctx, low)
	}
}

// rescan reports whether a fetch has to look below the mark again, and takes it as done.
func (m *mark) rescan(every time.Duration) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if now.Sub(m.full) < every {
		return false
	}
	m.full = now
	return true
}

// due reports whether the mark was last moved so long ago, and takes it as moved: others go on with what there is.
func (m *mark) due(every time.Duration) (low int64, due bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if now.Sub(m.looked) < every {
		return m.low, false
	}
	m.looked = now
	return m.low, true
}

// now is the mark as it is.
func (m *mark) now() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.low
}

// seen lowers the mark where a row was found that it hides.
func (m *mark) seen(seq int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if seq <= m.low {
		m.low, m.writers = 0, nil
	}
}

// raise moves the mark. No lock is held while the database is asked.
func (s *Store) raise(ctx context.Context, low int64) (int64, error) {
	var last int64
	if err := s.pool.QueryRow(ctx, s.text.last).Scan(&last); err != nil {
		return 0, err
	}
	writers, err := s.writers(ctx) // after last, and before next
	if err != nil {
		return 0, err
	}
	next := last + 1
	if err := s.pool.QueryRow(ctx, s.text.next, planned, low).Scan(&next); err != nil && err != pgx.ErrNoRows {
		return 0, err
	}
	m := &s.mark
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.low != low {
		return m.low, nil // somebody else was faster
	}
	if last < low {
		m.low, m.writers = 0, nil // the sequence was set back: another database, or an older one, is behind the same address
	}
	if m.writers != nil && !intersect(m.writers, writers) {
		m.low = max(m.low, min(m.bound, next-1))
		m.writers = nil
	}
	if m.writers == nil {
		m.bound, m.writers = last, writers
	}
	return m.low, nil
}

// writers are the transactions that hold the lock of a writer.
func (s *Store) writers(ctx context.Context) (map[string]bool, error) {
	rows, err := s.pool.Query(ctx, s.text.writers)
	if err != nil {
		return nil, err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, err
	}
	set := make(map[string]bool, len(names))
	for _, name := range names {
		set[name] = true
	}
	return set, nil
}

func intersect(a, b map[string]bool) bool {
	for name := range a {
		if b[name] {
			return true
		}
	}
	return false
}
