package bench

import (
	"context"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/Yiling-J/theine-go"
	"github.com/dgraph-io/ristretto/v2"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/hashicorp/golang-lru/v2/expirable"
	"github.com/jellydator/ttlcache/v3"
	"github.com/maypok86/otter/v2"
	"github.com/viccon/sturdyc"

	"github.com/backstay-go/backstay/cache"
)

const (
	otterName      = "otter 2.4.0"
	sturdyName     = "sturdyc 1.1.5"
	theineName     = "theine 0.6.3"
	ristrettoName  = "ristretto 2.4.2"
	lruName        = "golang-lru 2.0.7"
	ttlName        = "ttlcache 3.4.1"
	groupName      = "golang/groupcache"
	oursRefreshing = ours + ", refresh-ahead"
)

func caching() []Case {
	l := list{area: Cache}
	hits(&l)
	misses(&l)
	stampedes(&l)
	redisReads(&l)
	return l.cases
}

const (
	hitCase  = "hit"
	resident = 10_000
	entryTTL = time.Hour
)

// reader is a cache that holds all keys, each with its index as the value. get reports a miss as a negative number.
type reader struct {
	name string
	open func(keys []string) (get func(key string) int, end func())
}

func hits(l *list) {
	readers := append([]reader{{Floor, openSyncMap}}, hitReaders()...)
	for _, r := range readers {
		l.append(hitCase, r.name, hitSerial(r))
	}
	for _, r := range readers {
		l.append(hitCase+inParallel, r.name, hitParallel(r))
	}
}

// hitReaders all expire entries by TTL, but for the one that cannot.
func hitReaders() []reader {
	return []reader{
		{otterName + ", GetIfPresent", openOtterPresent},
		{otterName, func(keys []string) (func(string) int, func()) { return openOtter(keys, 0) }},
		{otterName + ", refresh", func(keys []string) (func(string) int, func()) { return openOtter(keys, entryTTL*9/10) }},
		{sturdyName + ", Get", openSturdyGet},
		{sturdyName, openSturdy},
		{ristrettoName, openRistretto},
		{theineName, openTheine},
		{lruName + ", no TTL", openLRU},
		{lruName + ", expirable", sharedLRU()},
		{ttlName, openTTL},
		{ours, func(keys []string) (func(string) int, func()) { return openOurs(keys, cache.Config{}) }},
		{oursRefreshing, func(keys []string) (func(string) int, func()) {
			return openOurs(keys, cache.Config{RefreshAhead: entryTTL / 10})
		}},
	}
}

func hitSerial(r reader) func(*testing.B) {
	return func(b *testing.B) {
		keys, order := hitOrder()
		get, end := r.open(keys)
		defer end()
		b.ReportAllocs()
		missed := 0
		for i := 0; b.Loop(); i++ {
			missed += sign(get(order[i&(len(order)-1)]))
		}
		mustHit(b, missed)
	}
}

func hitParallel(r reader) func(*testing.B) {
	return func(b *testing.B) {
		keys, order := hitOrder()
		get, end := r.open(keys)
		defer end()
		b.ReportAllocs()
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			missed := 0
			for i := rand.IntN(len(order)); pb.Next(); i++ {
				missed += sign(get(order[i&(len(order)-1)]))
			}
			mustHit(b, missed)
		})
	}
}

// sign is one for a negative number, without a branch that a compiler could turn into less work for some.
func sign(n int) int { return int(uint(n) >> 63) }

func mustHit(b *testing.B, missed int) {
	if missed > 0 {
		b.Errorf("%d misses: this is no benchmark of hits", missed)
	}
}

// hitOrder returns the keys and a power of two of reads of them, in Zipf order.
var hitOrder = sync.OnceValues(func() (keys, order []string) {
	keys = keyNames(resident)
	for _, i := range zipf(1.01, resident, 1<<16, 1) {
		order = append(order, keys[i])
	}
	return keys, order
})

func keyNames(n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = "key-" + strconv.Itoa(i)
	}
	return keys
}

// zipf draws numbers below n, of which i comes with a probability in proportion to 1/(i+1)^s; unlike rand.Zipf with any s.
func zipf(s float64, n, draws int, seed uint64) []int {
	cumulated := powers(s, n)
	random := rand.New(rand.NewPCG(seed, 1))
	drawn := make([]int, draws)
	for i := range drawn {
		drawn[i], _ = slices.BinarySearch(cumulated, random.Float64()*cumulated[n-1])
	}
	return drawn
}

func openSyncMap(keys []string) (func(string) int, func()) {
	var m sync.Map
	for i, k := range keys {
		m.Store(k, i)
	}
	return func(key string) int {
		v, ok := m.Load(key)
		return found(v, ok)
	}, func() {}
}

func found(v any, ok bool) int {
	if !ok {
		return -1
	}
	return v.(int)
}

func present(v int, ok bool) int {
	if !ok {
		return -1
	}
	return v
}

func nothing() {}

// missing is the loader of keys that are all there.
func missing(context.Context, string) (int, error) { return -1, nil }

func newOtter(capacity int, refreshAfter time.Duration) (c *otter.Cache[string, int], end func()) {
	clock := otter.NewCoarseClock(10 * time.Millisecond)
	options := &otter.Options[string, int]{
		MaximumSize: capacity, Clock: clock, ExpiryCalculator: otter.ExpiryWriting[string, int](entryTTL),
	}
	if refreshAfter > 0 {
		options.RefreshCalculator = otter.RefreshWriting[string, int](refreshAfter)
	}
	c = otter.Must(options)
	return c, func() { c.StopAllGoroutines(); clock.Stop() }
}

func openOtterPresent(keys []string) (func(string) int, func()) {
	c, end := newOtter(2*resident, 0)
	for i, k := range keys {
		c.Set(k, i)
	}
	return func(key string) int { return present(c.GetIfPresent(key)) }, end
}

func openOtter(keys []string, refreshAfter time.Duration) (func(string) int, func()) {
	c, end := newOtter(2*resident, refreshAfter)
	for i, k := range keys {
		c.Set(k, i)
	}
	load := otter.LoaderFunc[string, int](missing)
	ctx := context.Background()
	return func(key string) int {
		v, _ := c.Get(ctx, key, load)
		return v
	}, end
}

// newSturdy has more shards than the ten of the library's examples, and so fewer collisions of locks.
func newSturdy(capacity, shards int) *sturdyc.Client[int] {
	return sturdyc.New[int](capacity, shards, entryTTL, 10, sturdyc.WithNoContinuousEvictions())
}

func openSturdyGet(keys []string) (func(string) int, func()) {
	c := newSturdy(2*resident, 64)
	for i, k := range keys {
		c.Set(k, i)
	}
	return func(key string) int { return present(c.Get(key)) }, nothing
}

func openSturdy(keys []string) (func(string) int, func()) {
	c := newSturdy(2*resident, 64)
	for i, k := range keys {
		c.Set(k, i)
	}
	ctx := context.Background()
	// A function that needs the key, as one that loads does, would cost it one allocation more.
	fetch := func(context.Context) (int, error) { return -1, nil }
	return func(key string) int {
		v, _ := c.GetOrFetch(ctx, key, fetch)
		return v
	}, nothing
}

func newRistretto(capacity int64) *ristretto.Cache[string, int] {
	c, err := ristretto.NewCache(&ristretto.Config[string, int]{
		NumCounters: 10 * capacity, MaxCost: capacity, BufferItems: 64, IgnoreInternalCost: true,
	})
	if err != nil {
		panic(err)
	}
	return c
}

// openRistretto sets a key until it is there, since ristretto drops what it has no time for.
func openRistretto(keys []string) (func(string) int, func()) {
	c := newRistretto(2 * resident)
	for i, k := range keys {
		for ok := false; !ok; _, ok = c.Get(k) {
			c.SetWithTTL(k, i, 1, entryTTL)
			c.Wait()
		}
	}
	return func(key string) int { return present(c.Get(key)) }, c.Close
}

func openTheine(keys []string) (func(string) int, func()) {
	c, err := theine.NewBuilder[string, int](2 * resident).Build()
	if err != nil {
		panic(err)
	}
	for i, k := range keys {
		c.SetWithTTL(k, i, 1, entryTTL)
	}
	return func(key string) int { return present(c.Get(key)) }, c.Close
}

func openLRU(keys []string) (func(string) int, func()) {
	c, err := lru.New[string, int](2 * resident)
	if err != nil {
		panic(err)
	}
	for i, k := range keys {
		c.Add(k, i)
	}
	return func(key string) int { return present(c.Get(key)) }, nothing
}

// sharedLRU makes one cache for all rounds, since the goroutine of an expirable one never ends.
func sharedLRU() func(keys []string) (func(string) int, func()) {
	var once sync.Once
	var c *expirable.LRU[string, int]
	return func(keys []string) (func(string) int, func()) {
		once.Do(func() {
			c = expirable.NewLRU[string, int](2*resident, nil, entryTTL)
			for i, k := range keys {
				c.Add(k, i)
			}
		})
		return func(key string) int { return present(c.Get(key)) }, nothing
	}
}

func openTTL(keys []string) (func(string) int, func()) {
	c := ttlcache.New(ttlcache.WithTTL[string, int](entryTTL), ttlcache.WithCapacity[string, int](2*resident),
		ttlcache.WithDisableTouchOnHit[string, int]())
	for i, k := range keys {
		c.Set(k, i, ttlcache.DefaultTTL)
	}
	return func(key string) int {
		if item := c.Get(key); item != nil {
			return item.Value()
		}
		return -1
	}, nothing
}

func openOurs(keys []string, cfg cache.Config) (func(string) int, func()) {
	cfg.MaxEntries, cfg.TTL, cfg.TTLJitter = 2*resident, entryTTL, -1
	c := cache.New(missing, cfg)
	ctx := context.Background()
	for i, k := range keys {
		if err := c.Set(ctx, k, i); err != nil {
			panic(err)
		}
	}
	return func(key string) int {
		v, _ := c.Get(ctx, key)
		return v
	}, func() { _ = c.Close() }
}
