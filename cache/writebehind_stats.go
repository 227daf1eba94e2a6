package cache

import (
	"iter"
	"time"
)

// WriteBehindStats is a snapshot of a [WriteBehind]: of its cache, and of the writes on their way.
type WriteBehindStats struct {
	// Stats is what the cache has done.
	Stats
	// Pending is how many keys have a write that the source has not got, the Refused ones included.
	Pending int
	// Refused is how many of them the source will not have.
	Refused int
	// Oldest is how long ago the oldest accepted write was accepted that the source has not got; zero if there is none.
	// After a restart it counts from the start.
	Oldest time.Duration
	// Written is how many writes the source has got. Those that were replaced before are not among them.
	Written uint64
	// Coalesced is how many accepted writes replaced one of the same key that was pending.
	Coalesced uint64
	// Retries is how many calls of the writer repeated writes that had failed.
	Retries uint64
	// Rejected is how many calls of Set and Delete returned ErrFull.
	Rejected uint64
	// JournalFailures is how many calls of the journal's Commit failed.
	JournalFailures uint64
}

// Stats returns a snapshot. It may be called at any time. It holds up writes while it looks through the pending keys.
func (b *WriteBehind[K, V]) Stats() WriteBehindStats {
	s := WriteBehindStats{Stats: b.Cache.Stats()}
	b.mu.Lock()
	defer b.mu.Unlock()
	q := b.queue
	s.Pending, s.Written, s.Coalesced, s.Retries, s.Rejected = q.dirty, q.written, q.coalesced, q.retried, q.rejected
	if b.journal != nil {
		s.JournalFailures = b.journal.failures
	}
	s.Refused = q.refusals()
	now := q.now()
	for _, p := range q.table {
		if p.dirty {
			s.Oldest = max(s.Oldest, now-p.since)
		}
	}
	return s
}

// Describe returns what the console and telemetry show: the kind "cache", the name and both Configs in force.
func (b *WriteBehind[K, V]) Describe() (kind, name string, config any) {
	kind, name, cfg := b.Cache.Describe()
	return kind, name, struct {
		Cache       any               `json:"cache"`
		WriteBehind WriteBehindConfig `json:"write_behind"`
	}{cfg, b.cfg}
}

// Metrics yields the numbers of Stats under their metric names.
func (b *WriteBehind[K, V]) Metrics() iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) {
		for name, value := range b.Cache.Metrics() {
			if !yield(name, value) {
				return
			}
		}
		s := b.Stats()
		_ = yield("written_total", float64(s.Written)) &&
			yield("coalesced_total", float64(s.Coalesced)) &&
			yield("retries_total", float64(s.Retries)) &&
			yield("rejected_total", float64(s.Rejected)) &&
			yield("journal_failures_total", float64(s.JournalFailures)) &&
			yield("pending", float64(s.Pending)) &&
			yield("refused", float64(s.Refused)) &&
			yield("oldest_pending_seconds", s.Oldest.Seconds())
	}
}
