package cache

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// engine is what the types of this package share: the levels, the flights and the writes.
type engine[K comparable, V any] struct {
	// What a hit reads comes first, apart from what misses write.
	memory *memory[K, V] // nil when a store stands alone
	closed atomic.Bool
	config atomic.Pointer[Config]
	hits   counter

	loader   func(context.Context, K) (V, error)
	batch    func(context.Context, []K) (map[K]V, error)
	notFound func(error) bool
	weigh    func(K, V) int
	random   func() float64
	store    *guard[K, V] // nil when the memory stands alone
	clock    clock
	flights  flights[K, V]
	life     context.Context // ends with Close, and every load with it
	end      context.CancelFunc
	watching sync.WaitGroup

	reconfigure sync.Mutex

	misses, loads, loadFailures, refreshes, stale, negative atomic.Uint64
	loadTime                                                atomic.Int64
}

func (e *engine[K, V]) open(cfg Config, opts []Option) {
	o := gather(cfg.Name, opts)
	if err := cfg.validateFor(o.weigh != nil); err != nil {
		panic(err)
	}
	e.notFound = o.notFound
	e.weigh = typed[func(K, V) int](cfg.Name, "WithWeight", o.weigh)
	e.batch = typed[func(context.Context, []K) (map[K]V, error)](cfg.Name, "WithBatchLoader", o.batch)
	onEvict := typed[func(K, V, string)](cfg.Name, "WithOnEvict", o.onEvict)
	store := typed[Store[K, V]](cfg.Name, "the option for a store", o.store)

	cfg = cfg.withDefaults()
	e.config.Store(&cfg)
	e.random = rand.Float64
	e.clock = clock{base: time.Now()}
	e.life, e.end = context.WithCancel(context.Background())
	if store == nil || o.tiered {
		e.memory = newMemory[K, V](cfg, onEvict)
		e.clock = e.memory.precise()
	}
	e.flights.open(e.memory, e.clock, &e.closed)
	if store != nil {
		e.store = newGuard(store, cfg.StoreTimeout, cfg.Name)
		e.watch(store)
	}
}

// Set stores value under key for the TTL. A load of key that began before does not overwrite it. Without a store it
// neither blocks nor fails; with one, the error is [ErrStore] and the outcome in doubt. It returns [ErrClosed] after
// Close and [ErrKey] for a key that is not equal to itself.
func (e *engine[K, V]) Set(ctx context.Context, key K, value V) error {
	if !reflexive(key) {
		return e.fail(ErrKey, nil)
	}
	if e.closed.Load() {
		return e.fail(ErrClosed, nil)
	}
	made := e.keep(key, value, e.clock.now(), 0)
	if e.store == nil {
		e.flights.void(key, made)
		return nil
	}
	token := e.flights.claim(key)
	err := e.store.Set(ctx, key, portable(made))
	if err != nil {
		made = nil
	}
	e.flights.settleWrite(token, made)
	return e.doubt(err)
}

// Delete removes the entry of key, if any. A load of key that began before does not bring it back: call Delete after
// the write to the source has been committed. It blocks and fails as Set does. While the store fails, the key is
// remembered and deleted as soon as the store answers again.
func (e *engine[K, V]) Delete(ctx context.Context, key K) error {
	if e.closed.Load() {
		return e.fail(ErrClosed, nil)
	}
	var err error
	if e.store != nil {
		err = e.store.Delete(ctx, key)
	}
	e.flights.void(key, nil)
	return e.doubt(err)
}

// Invalidate drops this process's copies of the keys, and keeps loads that began before from bringing them back. A
// store given by WithStore or WithL2 is left as it is: call it when somebody else has changed the keys there.
func (e *engine[K, V]) Invalidate(keys ...K) {
	for _, key := range keys {
		e.flights.void(key, nil)
	}
}

// InvalidateAll is Invalidate for every key.
func (e *engine[K, V]) InvalidateAll() { e.flights.voidAll() }

// Config returns the Config in force, defaults filled in.
func (e *engine[K, V]) Config() Config { return *e.config.Load() }

// Reconfigure replaces the Config, or returns what Validate refuses and changes nothing. Entries, loads in flight and
// counters survive; entries keep the TTL they were stored with. A smaller size evicts before it returns.
func (e *engine[K, V]) Reconfigure(cfg Config) error {
	if err := cfg.validateFor(e.weigh != nil); err != nil {
		return err
	}
	e.reconfigure.Lock()
	defer e.reconfigure.Unlock()
	cfg = cfg.withDefaults()
	cfg.StoreTimeout = e.Config().StoreTimeout
	e.config.Store(&cfg)
	e.memory.resize(cfg)
	return nil
}

// Close cancels the loads in flight and waits for them, however long a loader ignores its context; their callers get
// [ErrClosed]. Later calls return ErrClosed, and Close itself nil. A store given by an option stays open.
func (e *engine[K, V]) Close() error {
	e.closed.Store(true)
	e.flights.close(e.end)
	e.watching.Wait()
	if e.store != nil {
		e.store.close()
	}
	e.memory.close()
	return nil
}

func (e *engine[K, V]) fail(kind, cause error) error {
	return &Error{Name: e.Config().Name, Kind: kind, Cause: cause}
}

// reflexive reports whether key equals itself, which a NaN does not. A map could never give such a key back.
func reflexive[K comparable](key K) bool {
	same := key
	return key == same
}
