package cache

import (
	"context"
	"math"
	"time"
)

// earliest is how many times βδ before the end of its TTL an entry is first considered for an early refresh: the
// random factor exceeds it once in a billion reads.
const earliest = 21

// due is the instant from which reads of an entry have to consider a refresh, or a load.
func (e *engine[K, V]) due(found *entry[V], cfg *Config) int64 {
	if found.absent {
		return math.MinInt64 // not to be served as a value
	}
	due := found.fresh
	if found.fresh == never || e.loader == nil {
		return due
	}
	if cfg.RefreshAhead > 0 {
		due = min(due, ahead(found, cfg))
	}
	if cfg.EarlyRefresh > 0 {
		window := earliest * cfg.EarlyRefresh * float64(found.cost)
		due = min(due, found.fresh-int64(min(window, float64(found.fresh-found.stored))))
	}
	return due
}

// ahead is when refresh-ahead begins: as far into the entry's own TTL as it would be into that of the Config.
func ahead[V any](found *entry[V], cfg *Config) int64 {
	share := min(1, float64(cfg.RefreshAhead)/float64(cfg.TTL))
	return found.fresh - int64(share*float64(found.fresh-found.stored))
}

// refreshIfDue begins a refresh of a fresh entry, if it is time to.
func (e *engine[K, V]) refreshIfDue(ctx context.Context, key K, found *entry[V], now int64) {
	if cfg := e.config.Load(); found.absent || !e.wants(found, now, cfg) {
		return
	}
	f := e.flights.refresh(key, found, now)
	if f == nil {
		return
	}
	found.pause(never)
	e.refreshes.Add(1)
	go e.fly(ctx, f)
}

// wants decides on a refresh: by the clock, or by chance as in XFetch.
func (e *engine[K, V]) wants(found *entry[V], now int64, cfg *Config) bool {
	if found.fresh == never || e.loader == nil {
		return false
	}
	if cfg.RefreshAhead > 0 && now >= ahead(found, cfg) {
		return true
	}
	if cfg.EarlyRefresh <= 0 || found.cost <= 0 {
		return false
	}
	gap := -cfg.EarlyRefresh * float64(found.cost) * math.Log(1-e.random())
	return time.Duration(gap) >= time.Duration(found.fresh-now)
}
