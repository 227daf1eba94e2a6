package caches

import (
	"context"
	"errors"

	"github.com/backstay-go/backstay/bench/cases"
	"github.com/backstay-go/backstay/cache"
)

func ours() *subject {
	return &subject{Subject: cases.Subject{Key: "backstay", Name: "backstay"}, open: backstayOpen}
}

func backstayOpen(sp spec) opened {
	cfg := cache.Config{
		MaxEntries: sp.capacity, TTL: sp.ttl, TTLJitter: -1, StaleIfError: sp.staleFor, NegativeTTL: sp.absentFor,
	}
	if sp.refreshAfter > 0 {
		cfg.RefreshAhead = sp.ttl - sp.refreshAfter
	}
	c := cache.New(sp.load, cfg, cache.WithNotFound(func(err error) bool { return errors.Is(err, errAbsent) }))
	lookup := func(ctx context.Context, key string) (any, bool, error) {
		r, err := c.Lookup(ctx, key)
		if errors.Is(err, cache.ErrNotFound) {
			err = errAbsent
		}
		return r.Value, r.Stale, err
	}
	return opened{
		get: func(ctx context.Context, key string) (any, error) {
			v, _, err := lookup(ctx, key)
			return v, err
		},
		lookup: lookup,
		set:    func(key string, v any) { _ = c.Set(context.Background(), key, v) },
		remove: func(key string) { _ = c.Delete(context.Background(), key) },
	}
}
