package sqloutbox

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"time"

	"github.com/backstay-go/backstay/outbox"
)

// mark is the low-water mark: fetches look above it, past the rows that are deleted and that the database still keeps for somebody's
// snapshot.
//
// Every period begins with a look at everything. Then the mark is set to the highest number known when the period before
// began, or below the oldest message that is left. So a row can appear below it only if its transaction has been open for longer
// than a period, or if numbers are drawn anew; the next look at everything finds it.
type mark struct {
	mu     sync.Mutex
	period time.Duration // negative: no mark
	began  time.Time
	low    int64
	next   int64 // the highest number known when this period began
	known  int64 // the highest number known
}

// begin is the number above which a fetch looks, and whether it begins a period: then the caller reports what is left.
func (m *mark) begin() (low int64, begins bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.period < 0 {
		return 0, false
	}
	if now := time.Now(); now.Sub(m.began) >= m.period {
		m.began = now
		return 0, true
	}
	return m.low, false
}

// now is the mark as it is.
func (m *mark) now() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.low
}

// saw takes note of what a fetch has found. A number that the mark hid, and those drawn from there on, may come again.
func (m *mark) saw(records []outbox.Record) {
	if len(records) == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	last := records[len(records)-1].Seq
	if records[0].Seq <= m.low {
		m.low, m.next, m.known = 0, 0, last
		return
	}
	m.known = max(m.known, last)
}

// raise begins a period in which oldest is the lowest number that is left; 0 is none.
func (m *mark) raise(oldest int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.low, m.next = m.next, m.known
	if oldest > 0 {
		m.low = min(m.low, oldest-1)
	}
}

// raiseMark looks for the oldest message of all buckets and begins a period with it.
func (s *Store) raiseMark(ctx context.Context) error {
	var oldest int64
	err := s.db.QueryRowContext(ctx, s.text.oldest).Scan(&oldest)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return err
	}
	s.mark.raise(oldest)
	return nil
}
