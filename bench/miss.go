package bench

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/Yiling-J/theine-go"
	"github.com/golang/groupcache"
	"github.com/hashicorp/golang-lru/v2/expirable"
	"github.com/jellydator/ttlcache/v3"
	"github.com/maypok86/otter/v2"
	"golang.org/x/sync/singleflight"

	"github.com/backstay-go/backstay/cache"
)

const (
	missCase        = "miss, instant loader"
	stampedeCase    = "stampede, 1,000 callers of a missing key, load of 1 ms"
	missCapacity    = 10_000
	missKeys        = 1 << 18 // by the time a key comes again it has long been evicted
	singleflightLRU = lruName + " expirable and x/sync singleflight"
	oursCancellable = ours + ", cancellable context"
)

// getter reads through a cache.
type getter func(ctx context.Context, key string) (int, error)

// through is a read-through cache in front of load.
type through struct {
	name string
	open func(capacity int, load getter) (get getter, end func())
}

func throughs() []through {
	return []through{
		{otterName, throughOtter},
		{singleflightLRU, throughLRU},
		{theineName, throughTheine},
		{sturdyName, throughSturdy},
		{ttlName, throughTTL},
		{ours, throughOurs},
	}
}

func misses(l *list) {
	// A caller that can give up needs the load to run on a goroutine of its own. The peers run it on the caller's.
	subjects := append([]through{{Floor, throughMap}}, throughs()...)
	for _, s := range subjects {
		l.append(missCase, s.name, missSerial(s, background))
	}
	l.append(missCase, oursCancellable, missSerial(through{ours, throughOurs}, cancellable))
	for _, s := range subjects {
		l.append(missCase+inParallel, s.name, missParallel(s, background))
	}
	l.append(missCase+inParallel, oursCancellable, missParallel(through{ours, throughOurs}, cancellable))
}

// newContext makes the context of the callers.
type newContext = func() (context.Context, context.CancelFunc)

func background() (context.Context, context.CancelFunc) { return context.Background(), nothing }

// cancellable is a context that can be cancelled; nobody does meanwhile.
func cancellable() (context.Context, context.CancelFunc) {
	return context.WithCancel(context.Background())
}

var missNames = sync.OnceValue(func() []string { return keyNames(missKeys) })

func instant(context.Context, string) (int, error) { return 1, nil }

func missSerial(s through, create newContext) func(*testing.B) {
	return func(b *testing.B) {
		ctx, cancel := create()
		defer cancel()
		keys := missNames()
		get, end := s.open(missCapacity, instant)
		defer end()
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			_, _ = get(ctx, keys[i&(missKeys-1)])
		}
	}
}

// missParallel lets the goroutines go through the keys from places far apart.
func missParallel(s through, create newContext) func(*testing.B) {
	return func(b *testing.B) {
		ctx, cancel := create()
		defer cancel()
		keys := missNames()
		get, end := s.open(missCapacity, instant)
		defer end()
		var goroutines atomic.Int64
		b.ReportAllocs()
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			i := int(goroutines.Add(1)) * (missKeys / 2)
			for ; pb.Next(); i++ {
				_, _ = get(ctx, keys[i&(missKeys-1)])
			}
		})
	}
}

func stampedes(l *list) {
	l.append(stampedeCase, Floor, stampede(through{Floor, throughOnce}))
	for _, s := range append(throughs(), through{groupName, throughGroup}) {
		l.append(stampedeCase, s.name, stampede(s))
	}
}

func stampede(s through) func(*testing.B) {
	return func(b *testing.B) {
		var loads atomic.Int64
		get, end := s.open(missCapacity, func(context.Context, string) (int, error) {
			loads.Add(1)
			<-time.After(time.Millisecond)
			return 1, nil
		})
		defer end()
		ctx := context.Background()
		keys := 0
		for ; b.Loop(); keys++ {
			key := strconv.Itoa(keys)
			var callers sync.WaitGroup
			for range 1000 {
				callers.Go(func() { _, _ = get(ctx, key) })
			}
			callers.Wait()
		}
		b.ReportMetric(float64(loads.Load())/float64(keys), LoadsMetric)
	}
}

// LoadsMetric is the unit of what stampedes report beside their time.
const LoadsMetric = "loads/op"

// throughMap is the least that a miss costs: a map behind a mutex, which is emptied when it holds all keys.
func throughMap(_ int, load getter) (getter, func()) {
	var mu sync.Mutex
	m := map[string]int{}
	return func(ctx context.Context, key string) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		if v, ok := m[key]; ok {
			return v, nil
		}
		if len(m) >= missKeys/4 {
			clear(m)
		}
		v, err := load(ctx, key)
		m[key] = v
		return v, err
	}, nothing
}

// throughOnce is the least that a stampede costs: the callers of a key wait for a sync.Once.
func throughOnce(_ int, load getter) (getter, func()) {
	var flights sync.Map
	return func(ctx context.Context, key string) (int, error) {
		f, ok := flights.Load(key)
		if !ok {
			f, _ = flights.LoadOrStore(key, sync.OnceValues(func() (int, error) { return load(ctx, key) }))
		}
		return f.(func() (int, error))()
	}, nothing
}

func throughOtter(capacity int, load getter) (getter, func()) {
	c, end := newOtter(capacity, 0)
	loader := otter.LoaderFunc[string, int](load)
	return func(ctx context.Context, key string) (int, error) { return c.Get(ctx, key, loader) }, end
}

func throughLRU(capacity int, load getter) (getter, func()) {
	c := expirable.NewLRU[string, int](capacity, nil, entryTTL)
	var flights singleflight.Group
	return func(ctx context.Context, key string) (int, error) {
		if v, ok := c.Get(key); ok {
			return v, nil
		}
		v, err, _ := flights.Do(key, func() (any, error) {
			v, err := load(ctx, key)
			if err == nil {
				c.Add(key, v)
			}
			return v, err
		})
		return v.(int), err
	}, c.Purge // its goroutine never ends
}

func throughTheine(capacity int, load getter) (getter, func()) {
	c, err := theine.NewBuilder[string, int](int64(capacity)).BuildWithLoader(func(ctx context.Context, key string) (theine.Loaded[int], error) {
		v, err := load(ctx, key)
		return theine.Loaded[int]{Value: v, Cost: 1, TTL: entryTTL}, err
	})
	if err != nil {
		panic(err)
	}
	return c.Get, c.Close
}

// throughSturdy has few shards, so that each is large enough for its evictions not to matter.
func throughSturdy(capacity int, load getter) (getter, func()) {
	c := newSturdy(capacity, 10)
	return func(ctx context.Context, key string) (int, error) {
		return c.GetOrFetch(ctx, key, func(ctx context.Context) (int, error) { return load(ctx, key) })
	}, nothing
}

func throughTTL(capacity int, load getter) (getter, func()) {
	loader := ttlcache.LoaderFunc[string, int](func(c *ttlcache.Cache[string, int], key string) *ttlcache.Item[string, int] {
		v, err := load(context.Background(), key)
		if err != nil {
			return nil
		}
		return c.Set(key, v, ttlcache.DefaultTTL)
	})
	c := ttlcache.New(ttlcache.WithTTL[string, int](entryTTL), ttlcache.WithCapacity[string, int](uint64(capacity)),
		ttlcache.WithDisableTouchOnHit[string, int](), ttlcache.WithLoader(ttlcache.NewSuppressedLoader(loader, nil)))
	return func(_ context.Context, key string) (int, error) { return c.Get(key).Value(), nil }, nothing
}

func throughOurs(capacity int, load getter) (getter, func()) {
	c := cache.New(load, cache.Config{MaxEntries: capacity, TTL: entryTTL, TTLJitter: -1})
	return c.Get, func() { _ = c.Close() }
}

// groups counts the groups, which need names of their own and are never forgotten.
var groups atomic.Int64

func throughGroup(capacity int, load getter) (getter, func()) {
	g := groupcache.NewGroup(strconv.FormatInt(groups.Add(1), 10), int64(capacity)*16, groupcache.GetterFunc(
		func(ctx context.Context, key string, dest groupcache.Sink) error {
			v, err := load(ctx, key)
			if err != nil {
				return err
			}
			return dest.SetBytes(strconv.AppendInt(nil, int64(v), 10))
		}))
	return func(ctx context.Context, key string) (int, error) {
		var v groupcache.ByteView
		if err := g.Get(ctx, key, groupcache.ByteViewSink(&v)); err != nil {
			return 0, err
		}
		return strconv.Atoi(v.String())
	}, nothing
}
