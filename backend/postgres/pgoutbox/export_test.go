package pgoutbox

import "time"

// LookEvery sets how often the low-water mark of s is moved.
func LookEvery(s *Store, d time.Duration) { s.mark.every = d }

// LowWater is the low-water mark of s.
func LowWater(s *Store) int64 {
	s.mark.mu.Lock()
	defer s.mark.mu.Unlock()
	return s.mark.low
}
