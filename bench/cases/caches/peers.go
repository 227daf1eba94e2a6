package caches

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/Yiling-J/theine-go"
	"github.com/golang/groupcache"
	"github.com/hashicorp/golang-lru/v2/expirable"
	"github.com/jellydator/ttlcache/v3"
	"github.com/maypok86/otter/v2"
	"github.com/viccon/sturdyc"
	"golang.org/x/sync/singleflight"

	"github.com/backstay-go/backstay/bench/cases"
)

func otterV2() *subject {
	return &subject{
		Subject: cases.Subject{Key: "otter", Name: "otter 2.4.0"}, open: otterOpen,
		lacks: map[feature]cases.Lack{staleness: noStale, absence: noAbsence},
	}
}

// otterOpen takes the library's own calculators. One that makes refreshes back off after a failure could be written.
func otterOpen(sp spec) opened {
	options := &otter.Options[string, any]{
		MaximumSize: sp.capacity, ExpiryCalculator: otter.ExpiryWriting[string, any](sp.ttl), Logger: &otter.NoopLogger{},
	}
	if sp.refreshAfter > 0 {
		options.RefreshCalculator = otter.RefreshWriting[string, any](sp.refreshAfter)
	}
	c := otter.Must(options)
	load := otter.LoaderFunc[string, any](sp.load)
	return opened{
		get:    func(ctx context.Context, key string) (any, error) { return c.Get(ctx, key, load) },
		set:    func(key string, v any) { c.Set(key, v) },
		remove: func(key string) { c.Invalidate(key) },
	}
}

func theineGo() *subject {
	return &subject{
		Subject: cases.Subject{Key: "theine", Name: "theine 0.6.3"}, open: theineOpen,
		lacks: map[feature]cases.Lack{refreshing: noRefresh, staleness: noStale, absence: noAbsence},
	}
}

func theineOpen(sp spec) opened {
	c, err := theine.NewBuilder[string, any](int64(sp.capacity)).BuildWithLoader(func(ctx context.Context, key string) (theine.Loaded[any], error) {
		v, err := sp.load(ctx, key)
		return theine.Loaded[any]{Value: v, Cost: 1, TTL: sp.ttl}, err
	})
	if err != nil {
		panic(err)
	}
	return opened{get: c.Get, set: func(key string, v any) { c.SetWithTTL(key, v, 1, sp.ttl) }, remove: c.Delete}
}

func sturdyC() *subject {
	return &subject{
		Subject: cases.Subject{Key: "sturdyc", Name: "sturdyc 1.1.5"}, open: sturdyOpen,
		lacks: map[feature]cases.Lack{staleness: noStale},
	}
}

// boxed is a value for sturdyc, which takes a nil result of an interface type for one of a wrong type.
type boxed struct{ value any }

// sturdyOpen takes the retry delay of the library's own examples for refreshes.
func sturdyOpen(sp spec) opened {
	options := []sturdyc.Option{sturdyc.WithLog(&sturdyc.NoopLogger{})}
	if sp.refreshAfter > 0 {
		options = append(options, sturdyc.WithEarlyRefreshes(sp.refreshAfter, sp.refreshAfter, sp.ttl, 10*time.Millisecond))
	}
	if sp.absentFor > 0 {
		options = append(options, sturdyc.WithMissingRecordStorage())
	}
	c := sturdyc.New[boxed](sp.capacity, 10, sp.ttl, 10, options...)
	return opened{
		get: func(ctx context.Context, key string) (any, error) {
			b, err := c.GetOrFetch(ctx, key, func(ctx context.Context) (boxed, error) {
				v, err := sp.load(ctx, key)
				if errors.Is(err, errAbsent) {
					err = sturdyc.ErrNotFound
				}
				return boxed{v}, err
			})
			if errors.Is(err, sturdyc.ErrMissingRecord) || errors.Is(err, sturdyc.ErrNotFound) {
				err = errAbsent
			}
			return b.value, err
		},
		set:    func(key string, v any) { c.Set(key, boxed{v}) },
		remove: c.Delete,
	}
}

// lruSync is what is written most often by hand: an LRU, and one load per key. It looks again inside the flight, since another one may
// have ended meanwhile.
func lruSync() *subject {
	return &subject{
		Subject: cases.Subject{Key: "lru", Name: "golang-lru 2.0.7 expirable with x/sync singleflight 0.24.0"}, open: lruOpen,
		lacks: map[feature]cases.Lack{refreshing: noRefresh, staleness: noStale, absence: noAbsence},
	}
}

func lruOpen(sp spec) opened {
	c := expirable.NewLRU[string, any](sp.capacity, nil, sp.ttl)
	var flights singleflight.Group
	return opened{
		get: func(ctx context.Context, key string) (any, error) {
			if v, ok := c.Get(key); ok {
				return v, nil
			}
			v, err, _ := flights.Do(key, func() (any, error) {
				if v, ok := c.Get(key); ok {
					return v, nil
				}
				v, err := sp.load(ctx, key)
				if err == nil {
					c.Add(key, v)
				}
				return v, err
			})
			return v, err
		},
		set:    func(key string, v any) { c.Add(key, v) },
		remove: func(key string) { c.Remove(key) },
	}
}

func ttlCache() *subject {
	return &subject{
		Subject: cases.Subject{Key: "ttlcache", Name: "ttlcache 3.4.1"}, open: ttlOpen,
		lacks: map[feature]cases.Lack{
			contexts: "its Get takes no context", refreshing: noRefresh, staleness: noStale, absence: noAbsence,
		},
	}
}

var errNoItem = errors.New("no item")

func ttlOpen(sp spec) opened {
	load := ttlcache.LoaderFunc[string, any](func(c *ttlcache.Cache[string, any], key string) *ttlcache.Item[string, any] {
		v, err := sp.load(context.Background(), key)
		if err != nil {
			return nil
		}
		return c.Set(key, v, ttlcache.DefaultTTL)
	})
	c := ttlcache.New(
		ttlcache.WithTTL[string, any](sp.ttl), ttlcache.WithCapacity[string, any](uint64(sp.capacity)),
		ttlcache.WithDisableTouchOnHit[string, any](), ttlcache.WithLoader(ttlcache.NewSuppressedLoader(load, nil)),
	)
	go c.Start()
	return opened{
		get: func(_ context.Context, key string) (any, error) {
			if item := c.Get(key); item != nil {
				return item.Value(), nil
			}
			return nil, errNoItem
		},
		set:    func(key string, v any) { c.Set(key, v, ttlcache.DefaultTTL) },
		remove: c.Delete,
	}
}

func groupCache() *subject {
	return &subject{
		Subject: cases.Subject{Key: "groupcache", Name: "golang/groupcache"}, open: groupOpen,
		lacks: map[feature]cases.Lack{
			writing: "has neither Set nor Delete", refreshing: noRefresh, staleness: noStale, absence: noAbsence,
			anyValues: "its values are bytes",
		},
	}
}

// groupOpen gives it room for values of a kilobyte, which is the size where room matters.
func groupOpen(sp spec) opened {
	g := groupcache.NewGroup("cases", int64(sp.capacity)*(1<<10+16), groupcache.GetterFunc(
		func(ctx context.Context, key string, dest groupcache.Sink) error {
			v, err := sp.load(ctx, key)
			if err != nil {
				return err
			}
			return dest.SetString(fmt.Sprint(v))
		}))
	return opened{get: func(ctx context.Context, key string) (any, error) {
		var v string
		err := g.Get(ctx, key, groupcache.StringSink(&v))
		return v, err
	}}
}
