package mempubsub

import (
	"hash/maphash"
	"time"

	"github.com/backstay-go/backstay/pubsub"
)

// recent remembers the DedupIDs that a topic has accepted within a window. It keeps hashes of 128 bits under random
// seeds: they take no more room for a long ID, keep no publisher's memory alive and are nothing for the garbage
// collector to look at. Among a million of them two different IDs are alike with a probability of 10⁻²⁷.
type recent struct {
	window time.Duration
	limit  int
	known  map[dedupID]struct{}
	order  fifo[remembered]
}

type dedupID [2]uint64

type remembered struct {
	id    dedupID
	until time.Duration
}

// maxRecent bounds the IDs of one topic.
const maxRecent = 1 << 20

var dedupSeeds = [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}

func hashID(m *pubsub.Message) dedupID {
	id := pubsub.DedupID(*m)
	return dedupID{maphash.String(dedupSeeds[0], id), maphash.String(dedupSeeds[1], id)}
}

func (r *recent) full() bool { return r.order.n >= r.limit }

// has forgets what is older than the window and reports whether id is known.
func (r *recent) has(id dedupID, now time.Duration) bool {
	for r.order.n > 0 && r.order.at(0).until <= now {
		delete(r.known, r.order.pop().id)
	}
	if len(r.known) == 0 {
		r.known = nil // a map does not shrink
	}
	_, ok := r.known[id]
	return ok
}

func (r *recent) add(id dedupID, now time.Duration) {
	if r.known == nil {
		r.known = make(map[dedupID]struct{})
	}
	r.known[id] = struct{}{}
	r.order.push(remembered{id, after(now, r.window)})
}
