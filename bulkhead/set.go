package bulkhead

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay/configdata"
)

// SetConfig is the data of a [Set]: plain, comparable, JSON as that of [Config]. The zero SetConfig is valid and means the
// defaults. Every field may be changed while running by [Set.Reconfigure].
type SetConfig struct {
	// Name appears in metrics, and before the key in the names of the bulkheads. Default "bulkhead".
	Name string `json:"name"`
	// Each is the Config of every key's bulkhead. Its Name must be empty: the bulkhead of the key acme is called Name[acme].
	Each Config `json:"each"`
	// MaxKeys is how many keys have a bulkhead of their own. Default 10,000; negative is refused. Further keys share one more
	// bulkhead, until a key is dropped.
	MaxKeys int `json:"max_keys"`
	// Idle is how long a key must not have been asked for before it may be dropped. Default 1m, at least 1s, so that no call
	// under way loses its bulkhead; negative is refused.
	Idle time.Duration `json:"idle"`
}

// Validate reports every field that is out of range, or nil.
func (c SetConfig) Validate() error {
	f := configdata.Check("bulkhead", c.Name)
	f.Require(c.Each.Name == "", "Each.Name", c.Each.Name, "empty: the set's Name and the key are used")
	f.Require(c.MaxKeys >= 0, "MaxKeys", c.MaxKeys, "positive, or 0 for the default")
	f.Require(c.Idle == 0 || c.Idle >= time.Second, "Idle", c.Idle, "at least 1s, or 0 for the default")
	each := c.Each
	each.Name = c.Name
	return errors.Join(f.Err(), each.Validate())
}

func (c SetConfig) withDefaults() SetConfig {
	if c.Name == "" {
		c.Name = "bulkhead"
	}
	c.Each = c.Each.withDefaults()
	c.Each.Name = ""
	c.MaxKeys = configdata.Default(c.MaxKeys, 10_000)
	c.Idle = configdata.Default(c.Idle, time.Minute)
	return c
}

func (c SetConfig) each(key any) Config {
	each := c.Each
	each.Name = fmt.Sprintf("%s[%v]", c.Name, key)
	return each
}

// MarshalJSON writes the fields that are set.
func (c SetConfig) MarshalJSON() ([]byte, error) { return configdata.Marshal(c) }

// UnmarshalJSON reads a whole SetConfig and refuses unknown fields. It does not validate: call Validate.
func (c *SetConfig) UnmarshalJSON(data []byte) error { return configdata.Unmarshal(data, c) }

// Set is a bulkhead for each key, such as a host or a tenant, in bounded memory, so that one that is slow does not take the
// room of the others. Make it with [NewSet]; the zero value is not usable. It is safe for concurrent use, starts no goroutine
// and needs no closing.
//
// A key is dropped only when it was not asked for during Idle and its bulkhead is empty, so that a new one would do the same:
// being dropped gives nobody more room. This is looked at when new keys come. While MaxKeys are in use, further keys share
// one bulkhead, which is stricter and never laxer than one of their own.
type Set[K comparable] struct {
	mu      sync.RWMutex // never held across a wait
	cfg     SetConfig
	entries map[K]*entry
	shared  *Bulkhead
	swept   time.Time
	evicted int64
	retired int64 // rejections by bulkheads that were dropped
	sharing atomic.Int64
}

type entry struct {
	bulkhead *Bulkhead
	asked    atomic.Bool // for, since the last sweep
}

// NewSet returns a Set without keys. It panics on a SetConfig that Validate rejects: call Validate first on input from
// outside.
func NewSet[K comparable](cfg SetConfig) *Set[K] {
	if err := cfg.Validate(); err != nil {
		panic(err)
	}
	cfg = cfg.withDefaults()
	return &Set[K]{cfg: cfg, entries: map[K]*entry{}, shared: New(cfg.each("…")), swept: time.Now()}
}

// WrapBy returns fn limited by the bulkhead of the key that keyOf finds in the input. The result is safe for concurrent use
// when fn and keyOf are; for a known key it adds no allocation.
func WrapBy[K comparable, In, Out any](s *Set[K], keyOf func(In) K, fn func(context.Context, In) (Out, error)) func(context.Context, In) (Out, error) {
	if s == nil || keyOf == nil || fn == nil {
		panic("bulkhead: WrapBy: the set or a function is nil")
	}
	return func(ctx context.Context, in In) (Out, error) {
		return run(ctx, s.Get(keyOf(in)), fn, in)
	}
}

// Get returns the bulkhead of key, a new one if there is none. Ask again for every call instead of keeping it: it may be
// dropped from the set when nobody asked for it during Idle.
func (s *Set[K]) Get(key K) *Bulkhead {
	s.mu.RLock()
	e := s.entries[key]
	if e != nil && !e.asked.Load() {
		e.asked.Store(true)
	}
	s.mu.RUnlock()
	if e != nil {
		return e.bulkhead
	}
	return s.add(key)
}

func (s *Set[K]) add(key K) *Bulkhead {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entries[key]; e != nil {
		e.asked.Store(true)
		return e.bulkhead
	}
	if time.Since(s.swept) >= s.cfg.Idle {
		s.sweep()
	}
	if len(s.entries) >= s.cfg.MaxKeys {
		s.sharing.Add(1)
		return s.shared
	}
	e := &entry{bulkhead: New(s.cfg.each(key))}
	e.asked.Store(true)
	s.entries[key] = e
	return e.bulkhead
}

// sweep drops the keys that nobody asked for since the last sweep and whose bulkheads are empty.
func (s *Set[K]) sweep() {
	s.swept = time.Now()
	maps.DeleteFunc(s.entries, func(_ K, e *entry) bool {
		if e.asked.Swap(false) || e.bulkhead.counts.Load() > 0 {
			return false
		}
		s.evicted++
		s.retired += e.bulkhead.rejected.Load()
		return true
	})
}

// All yields every key with its bulkhead, in no order, as they are at the moment of the call. Nobody is locked out meanwhile.
func (s *Set[K]) All() iter.Seq2[K, *Bulkhead] {
	s.mu.RLock()
	entries := maps.Clone(s.entries)
	s.mu.RUnlock()
	return func(yield func(K, *Bulkhead) bool) {
		for key, e := range entries {
			if !yield(key, e.bulkhead) {
				return
			}
		}
	}
}

// Reconfigure replaces the SetConfig, and with it that of every bulkhead, as [Bulkhead.Reconfigure] does. All keys stay, even
// if they are more than MaxKeys; idle ones are dropped as new keys come. It returns what Validate returns, and then changes
// nothing.
func (s *Set[K]) Reconfigure(cfg SetConfig) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cfg = cfg.withDefaults()
	s.shared.reconfigure(s.cfg.each("…"))
	for key, e := range s.entries {
		e.bulkhead.reconfigure(s.cfg.each(key))
	}
	return nil
}

// Config returns the SetConfig in force, with defaults filled in.
func (s *Set[K]) Config() SetConfig {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.cfg
}

// SetStats is a snapshot. Rejected, Evicted and Shared count since NewSet.
type SetStats struct {
	Keys     int   // that have a bulkhead of their own now
	Running  int   // weight of the permits of all bulkheads that are held now
	Waiting  int   // callers in the queues of all bulkheads now
	Evicted  int64 // keys that were dropped
	Shared   int64 // times that a key got the shared bulkhead because there were MaxKeys
	Rejected int64 // calls that were refused, for all keys
}

// Stats returns the numbers of now. It looks at every key.
func (s *Set[K]) Stats() SetStats {
	s.mu.RLock()
	defer s.mu.RUnlock()
	stats := SetStats{Keys: len(s.entries), Evicted: s.evicted, Shared: s.sharing.Load(), Rejected: s.retired}
	count := func(b *Bulkhead) {
		one := b.Stats()
		stats.Running += one.Running
		stats.Waiting += one.Waiting
		stats.Rejected += one.Rejected
	}
	count(s.shared)
	for _, e := range s.entries {
		count(e.bulkhead)
	}
	return stats
}

// Describe returns the kind "bulkhead", the name and the SetConfig, for consoles and telemetry.
func (s *Set[K]) Describe() (kind, name string, config any) {
	cfg := s.Config()
	return "bulkhead", cfg.Name, cfg
}

// Metrics yields the numbers of Stats by name.
func (s *Set[K]) Metrics() iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) {
		n := s.Stats()
		_ = yield("keys", float64(n.Keys)) &&
			yield("running", float64(n.Running)) &&
			yield("waiting", float64(n.Waiting)) &&
			yield("evicted_total", float64(n.Evicted)) &&
			yield("shared_total", float64(n.Shared)) &&
			yield("rejected_total", float64(n.Rejected))
	}
}
