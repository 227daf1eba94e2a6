package rediscache

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/redis/rueidis"

	"github.com/backstay-go/backstay/cache"
)

// defaultLease is how long a lease lasts when the context has no deadline.
const defaultLease = 10 * time.Second

// Store keeps the entries of caches in Redis: a cache.Store and a cache.Watcher. New makes one. Its methods are safe for
// concurrent use and end with their context, or by the client's timeouts. It holds nothing
// that would have to be closed; the client stays its owner's. Errors are of type *Error.
type Store[K comparable, V any] struct {
	cfg    Config
	conn   Conn
	codec  codec[V]
	keys   keys[K]
	values string // begins the name of a value in Redis
	leases string // begins the name of a lease
	counts counts
}

var (
	_ cache.Store[string, any] = (*Store[string, any])(nil)
	_ cache.Watcher[string]    = (*Store[string, any])(nil)
)

// New returns a Store on client, which the caller closes after the last use of the Store. It sends nothing. It fails when
// cfg is invalid, and when keys of type K need WithKey. See ClientOption for a client that is quick to notice failures.
func New[K comparable, V any](client rueidis.Client, cfg Config, opts ...Option) (*Store[K, V], error) {
	if client == nil {
		return nil, errors.New("rediscache: New: the client is nil")
	}
	return NewWithConn[K, V](rueidisConn{client}, cfg, opts...)
}

// NewWithConn is New for another client library.
func NewWithConn[K comparable, V any](conn Conn, cfg Config, opts ...Option) (*Store[K, V], error) {
	if conn == nil {
		return nil, errors.New("rediscache: NewWithConn: the connection is nil")
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	codec, codecErr := codecOf[V](o.codec)
	keys, keysErr := keysOf[K](o.keys)
	if err := errors.Join(codecErr, keysErr); err != nil {
		return nil, fmt.Errorf("rediscache %q: %w", cfg.Name, err)
	}
	return &Store[K, V]{cfg: cfg, conn: conn, codec: codec, keys: keys,
		values: cfg.Prefix + ":v:{=", leases: cfg.Prefix + ":l:{="}, nil
}

// Redis Cluster hashes what is between the first brace and the next closing one. The sign before the key keeps that from
// being empty, so that value and lease of any key share a slot.
func (s *Store[K, V]) valueKey(text string) string { return s.values + text + "}" }

func (s *Store[K, V]) both(key K) [2]string {
	text := s.keys.encode(key)
	return [2]string{s.valueKey(text), s.leases + text + "}"}
}

// Get returns the entry of key and whether there is one.
func (s *Store[K, V]) Get(ctx context.Context, key K) (cache.Entry[V], bool, error) {
	found, err := get(ctx, s.conn, s.valueKey(s.keys.encode(key)))
	if err != nil {
		if hasCode(err, "WRONGTYPE") { // somebody else's; a Set or a Fill replaces it
			s.counts.undecodable.Add(1)
			return cache.Entry[V]{}, false, nil
		}
		return cache.Entry[V]{}, false, s.failed("get", err)
	}
	if found.value == nil {
		return cache.Entry[V]{}, false, nil
	}
	e, ok := s.parse(found.value, found.left)
	return e, ok, nil
}

func (s *Store[K, V]) parse(data []byte, left time.Duration) (cache.Entry[V], bool) {
	e, err := s.codec.parse(data, left)
	if err != nil {
		s.counts.undecodable.Add(1)
		return cache.Entry[V]{}, false
	}
	return e, true
}

// Lease asks for the right to fill key, as cache.Store says. A lease whose answer was lost lapses by itself.
func (s *Store[K, V]) Lease(ctx context.Context, key K, seen uint64) (cache.Grant[V], error) {
	life := defaultLease
	if deadline, ok := ctx.Deadline(); ok {
		life = time.Until(deadline)
	}
	l := &lease[K, V]{store: s, keys: s.both(key), token: versionText(newVersion())}
	reply, err := eval(ctx, s.conn, leaseScript, l.keys, versionText(seen), l.token, milliseconds(life))
	if err == nil && reply.Value != nil {
		if e, ok := s.parse(reply.Value, time.Duration(reply.Number)*time.Millisecond); ok {
			return cache.Grant[V]{Entry: e, Found: true}, nil
		}
		reply, err = eval(ctx, s.conn, leaseScript, l.keys, versionIn(reply.Value), l.token, milliseconds(life))
	}
	if err != nil {
		return cache.Grant[V]{}, s.failed("lease", err)
	}
	if reply.Value == nil && reply.Number == 1 {
		return cache.Grant[V]{Lease: l}, nil
	}
	return cache.Grant[V]{}, nil
}

// Set stores the entry and voids the lease of key.
func (s *Store[K, V]) Set(ctx context.Context, key K, e cache.Entry[V]) error {
	value, encodeErr := s.encode("set", e)
	_, err := eval(ctx, s.conn, setScript, s.both(key), value, milliseconds(lifetime(e.TTL, e.Keep)))
	if err != nil {
		return s.failed("set", err)
	}
	return encodeErr
}

// Delete removes the entry, if any, and voids the lease of key.
func (s *Store[K, V]) Delete(ctx context.Context, key K) error {
	_, err := eval(ctx, s.conn, setScript, s.both(key), "", "0")
	return s.failed("delete", err)
}

// Ping returns nil once Redis answers.
func (s *Store[K, V]) Ping(ctx context.Context) error {
	_, err := attend(ctx, func() (struct{}, error) { return struct{}{}, s.conn.Ping(ctx) })
	return s.failed("ping", err)
}

// Watch tells of changes until ctx ends, as cache.Watcher says: also of expiries and evictions, and of this Store's own
// changes. While it connects, it ends by the client's own timeouts only. It uses a connection of its own to each server, and looks at least every five seconds whether those still
// live and which servers there are. Cost: Redis sends each change of a key with the Prefix to each watcher.
func (s *Store[K, V]) Watch(ctx context.Context, changed func(key K), lost func()) error {
	onChanged := func(name string) {
		text, ok := strings.CutPrefix(name, s.values)
		text, closed := strings.CutSuffix(text, "}")
		if key, err := s.keys.decode(text); ok && closed && err == nil {
			changed(key)
		}
	}
	onLost := func() {
		s.counts.lost.Add(1)
		lost()
	}
	return s.failed("watch", s.conn.Watch(ctx, s.values, onChanged, onLost))
}

// encode returns what Redis is to hold: nothing, if e is too large or cannot be encoded.
func (s *Store[K, V]) encode(op string, e cache.Entry[V]) (string, error) {
	data, err := s.codec.append(nil, newVersion(), e)
	if err != nil {
		return "", &Error{Name: s.cfg.Name, Op: op, Kind: ErrEncode, Cause: err}
	}
	if len(data)-headerSize > s.cfg.MaxValueSize {
		s.counts.tooLarge.Add(1)
		return "", nil
	}
	return unsafe.String(unsafe.SliceData(data), len(data)), nil
}

func (s *Store[K, V]) failed(op string, err error) error {
	if err == nil {
		return nil
	}
	var answer ServerError
	switch {
	case errors.Is(err, ErrNoNotices):
		return &Error{Name: s.cfg.Name, Op: op, Kind: ErrNoNotices}
	case errors.As(err, &answer):
		return &Error{Name: s.cfg.Name, Op: op, Kind: ErrRefused, Cause: err}
	default:
		return &Error{Name: s.cfg.Name, Op: op, Kind: ErrUnanswered, Cause: err}
	}
}

// lease is a token that Redis holds under the key's lease.
type lease[K comparable, V any] struct {
	store *Store[K, V]
	keys  [2]string
	token string
}

func (l *lease[K, V]) Fill(ctx context.Context, e cache.Entry[V]) (bool, error) {
	s := l.store
	value, encodeErr := s.encode("fill", e)
	reply, err := eval(ctx, s.conn, fillScript, l.keys, l.token, value, milliseconds(lifetime(e.TTL, e.Keep)))
	if err != nil {
		return false, s.failed("fill", err)
	}
	return reply.Number == 1 && encodeErr == nil, encodeErr
}

func (l *lease[K, V]) Release(ctx context.Context) error {
	_, err := eval(ctx, l.store.conn, releaseScript, l.keys, l.token)
	return l.store.failed("release", err)
}

// newVersion is a number that nobody else has: with 64 random bits, as good as none.
func newVersion() uint64 {
	for {
		if v := rand.Uint64(); v != 0 {
			return v
		}
	}
}

// milliseconds is d as Redis wants it.
func milliseconds(d time.Duration) string {
	return strconv.FormatInt(max(int64((d+time.Millisecond-1)/time.Millisecond), 1), 10)
}

type counts struct{ undecodable, tooLarge, lost atomic.Uint64 }

// Stats counts since the Store was made.
type Stats struct {
	// Undecodable is how often what Redis holds under a key was no entry, or one that the codec refuses.
	Undecodable uint64
	// TooLarge is the number of values that were not kept because of Config.MaxValueSize.
	TooLarge uint64
	// NoticesLost is how often Watch began to listen, for the first time or again, or knows that it has missed notices.
	NoticesLost uint64
}

// Stats is a snapshot; reading it does not slow the Store.
func (s *Store[K, V]) Stats() Stats {
	return Stats{s.counts.undecodable.Load(), s.counts.tooLarge.Load(), s.counts.lost.Load()}
}

// Describe names the Store for consoles and telemetry; config is its Config with defaults filled in.
func (s *Store[K, V]) Describe() (kind, name string, config any) {
	return "rediscache", s.cfg.Name, s.cfg
}

// Metrics yields Stats by name.
func (s *Store[K, V]) Metrics() iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) {
		st := s.Stats()
		_ = yield("undecodable_total", float64(st.Undecodable)) &&
			yield("too_large_total", float64(st.TooLarge)) &&
			yield("notices_lost_total", float64(st.NoticesLost))
	}
}
