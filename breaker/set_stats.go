package breaker

import "iter"

// SetStats is a snapshot of a [Set].
type SetStats struct {
	Keys    int   // breakers now
	Open    int   // of them, those that are open or half-open
	Evicted int64 // breakers dropped since NewSet
	Held    int64 // openings that MaxOpenRatio has prevented: one for each result that gave reason to open
	Total   Stats // sums over all breakers since NewSet, those that are gone included; no State and no window
}

// Stats returns the numbers of now, after dropping keys that are idle. It looks at every breaker.
func (s *Set[K]) Stats() SetStats {
	s.mu.Lock()
	s.sweep()
	stats := SetStats{Keys: len(s.order), Evicted: s.evicted, Total: s.dropped}
	s.mu.Unlock()
	for _, e := range s.snapshot() {
		stats.Total.add(e.breaker.Stats())
	}
	s.quota.mu.Lock()
	defer s.quota.mu.Unlock()
	stats.Open, stats.Held = s.quota.taken, s.quota.refused
	return stats
}

// Describe returns the kind "breaker.Set", the name and the SetConfig, for consoles and telemetry.
func (s *Set[K]) Describe() (kind, name string, config any) {
	cfg := s.Config()
	return "breaker.Set", cfg.Name, cfg
}

// Metrics yields the numbers of Stats by name.
func (s *Set[K]) Metrics() iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) {
		stats := s.Stats()
		_ = yield("keys", float64(stats.Keys)) &&
			yield("open", float64(stats.Open)) &&
			yield("evicted_total", float64(stats.Evicted)) &&
			yield("held_total", float64(stats.Held)) &&
			yield("successes_total", float64(stats.Total.Successes)) &&
			yield("failures_total", float64(stats.Total.Failures)) &&
			yield("slow_total", float64(stats.Total.Slow)) &&
			yield("ignored_total", float64(stats.Total.Ignored)) &&
			yield("rejected_total", float64(stats.Total.Rejected)) &&
			yield("opened_total", float64(stats.Total.Opened))
	}
}
