package rediscache_test

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/redis/internal/redistest"
	"github.com/backstay-go/backstay/backend/redis/rediscache"
	"github.com/backstay-go/backstay/cache"
)

// raw puts text where the store keeps the value of key.
func raw(t *testing.T, client rueidis.Client, prefix, key, text string) {
	t.Helper()
	name := prefix + ":v:{=" + key + "}"
	require.NoError(t, client.Do(t.Context(), client.B().Set().Key(name).Value(text).Ex(time.Hour).Build()).Error())
}

func TestWhatCannotBeDecodedIsNotThereAndCanBeReplaced(t *testing.T) {
	client, prefix := shared(t)
	s := open(t, client, rediscache.Config{Prefix: prefix})
	set(t, s, "good", "v")
	good, err := client.Do(t.Context(), client.B().Get().Key(prefix+":v:{=good}").Build()).ToString()
	require.NoError(t, err)
	for i, text := range []string{"", "x", "12345678", "123456789", strings.Repeat("z", 100), "\x02" + good[1:],
		good[:1] + strings.Repeat("\x00", 8) + good[9:], good[:9] + "\x02" + good[10:], good[:9] + "\x01" + good[10:]} {
		raw(t, client, prefix, "k", text)
		requireNone(t, s, "k")
		ok, err := lease(t, s, "k", 0).Fill(within(t, time.Minute), entry("filled"))
		require.NoError(t, err)
		require.True(t, ok)
		requireValue(t, s, "k", "filled")
		require.NotZero(t, s.Stats().Undecodable, "case %d", i)
	}
}

func TestWhatTheCodecRefusesIsNotThereAndCanBeReplaced(t *testing.T) {
	client, prefix := shared(t)
	cfg := rediscache.Config{Prefix: prefix}
	set(t, open(t, client, cfg), "k", "no JSON")
	s, err := rediscache.New[string, int](client, cfg)
	require.NoError(t, err)
	ctx := within(t, time.Minute)
	_, ok, err := s.Get(ctx, "k")
	require.NoError(t, err)
	require.False(t, ok)
	grant, err := s.Lease(ctx, "k", 0)
	require.NoError(t, err)
	require.NotNil(t, grant.Lease)
	ok, err = grant.Lease.Fill(ctx, cache.Entry[int]{Value: 7})
	require.NoError(t, err)
	require.True(t, ok)
	e, ok, err := s.Get(ctx, "k")
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, 7, e.Value)
	require.EqualValues(t, 2, s.Stats().Undecodable)
}

func TestAnotherTypeOfKeyIsNotThereAndCanBeReplaced(t *testing.T) {
	client, prefix := shared(t)
	push := func() {
		name := prefix + ":v:{=k}"
		require.NoError(t, client.Do(t.Context(), client.B().Del().Key(name).Build()).Error())
		require.NoError(t, client.Do(t.Context(), client.B().Lpush().Key(name).Element("x").Build()).Error())
	}
	s := open(t, client, rediscache.Config{Prefix: prefix})
	push()
	requireNone(t, s, "k")
	ok, err := lease(t, s, "k", 0).Fill(within(t, time.Minute), entry("filled"))
	require.NoError(t, err)
	require.True(t, ok)
	requireValue(t, s, "k", "filled")
	push()
	set(t, s, "k", "set")
	requireValue(t, s, "k", "set")
}

func TestLargeValuesAreNotKeptAndReplaceNothingOld(t *testing.T) {
	client, prefix := shared(t)
	s := open(t, client, rediscache.Config{Prefix: prefix, MaxValueSize: 10})
	ctx := within(t, time.Minute)
	set(t, s, "k", strings.Repeat("v", 10))
	l := lease(t, s, "k", requireValue(t, s, "k", strings.Repeat("v", 10)).Version)
	set(t, s, "k", strings.Repeat("v", 11))
	requireNone(t, s, "k")
	ok, err := l.Fill(ctx, entry("stale"))
	require.NoError(t, err)
	require.False(t, ok, "a Set of a value that is not kept has to void the lease")

	ok, err = lease(t, s, "k", 0).Fill(ctx, entry(strings.Repeat("v", 11)))
	require.NoError(t, err)
	require.True(t, ok)
	requireNone(t, s, "k")
	require.EqualValues(t, 2, s.Stats().TooLarge)
	require.NoError(t, lease(t, s, "k", 0).Release(ctx), "the lease has ended")
}

func TestValuesThatCannotBeEncodedLeaveNothingOld(t *testing.T) {
	client, prefix := shared(t)
	s, err := rediscache.New[string, any](client, rediscache.Config{Name: "odd", Prefix: prefix})
	require.NoError(t, err)
	ctx := within(t, time.Minute)
	bad := cache.Entry[any]{Value: func() {}}
	require.NoError(t, s.Set(ctx, "k", cache.Entry[any]{Value: "old"}))
	err = s.Set(ctx, "k", bad)
	require.ErrorIs(t, err, rediscache.ErrEncode)
	require.ErrorContains(t, err, `rediscache "odd": set: value cannot be encoded`)
	var e *rediscache.Error
	require.ErrorAs(t, err, &e)
	require.True(t, e.Permanent())
	_, ok, err := s.Get(ctx, "k")
	require.NoError(t, err)
	require.False(t, ok)

	grant, err := s.Lease(ctx, "k", 0)
	require.NoError(t, err)
	ok, err = grant.Lease.Fill(ctx, bad)
	require.ErrorIs(t, err, rediscache.ErrEncode)
	require.False(t, ok)
	grant, err = s.Lease(ctx, "k", 0)
	require.NoError(t, err)
	require.NotNil(t, grant.Lease, "the failed Fill has to end the lease")
}

// A repetition of a script, which a client makes when the answer was lost, must not be taken for another caller.
func TestRepeatedScriptsAnswerTheSame(t *testing.T) {
	client, prefix := shared(t)
	s, err := rediscache.NewWithConn[string, string](twice{rediscache.RueidisConn(client)}, rediscache.Config{Prefix: prefix})
	require.NoError(t, err)
	ctx := within(t, time.Minute)
	l := lease(t, s, "k", 0)
	ok, err := l.Fill(ctx, entry("filled"))
	require.NoError(t, err)
	require.True(t, ok)
	ok, err = l.Fill(ctx, entry("filled"))
	require.NoError(t, err)
	require.False(t, ok)
}

type twice struct{ rediscache.Conn }

func (c twice) Eval(ctx context.Context, command, script string, keys [2]string, args ...string) (rediscache.Reply, error) {
	if reply, err := c.Conn.Eval(ctx, command, script, keys, args...); err != nil {
		return reply, err
	}
	return c.Conn.Eval(ctx, command, script, keys, args...)
}

func TestEntriesWithoutTTLCanBeEvictedAndHaveAnAge(t *testing.T) {
	client, prefix := shared(t)
	s := open(t, client, rediscache.Config{Prefix: prefix})
	require.NoError(t, s.Set(within(t, time.Minute), "k", cache.Entry[string]{Value: "v"}))
	left, err := client.Do(t.Context(), client.B().Pttl().Key(prefix+":v:{=k}").Build()).AsInt64()
	require.NoError(t, err)
	require.Positive(t, left, "Redis's volatile policies evict only what has an expiry")
	redistest.Eventually(t, "the entry ages", func() bool { return requireValue(t, s, "k", "v").Age >= 20*time.Millisecond })
}

func TestAnEntryWhoseExpiryWasRemovedIsOld(t *testing.T) {
	client, prefix := shared(t)
	s := open(t, client, rediscache.Config{Prefix: prefix})
	set(t, s, "k", "v")
	require.NoError(t, client.Do(t.Context(), client.B().Persist().Key(prefix+":v:{=k}").Build()).Error())
	require.GreaterOrEqual(t, requireValue(t, s, "k", "v").Age, time.Hour)
}

// Between the commands of a Get somebody may replace the entry. An old value with the remaining life of its successor would
// seem young.
func TestGetAsksForTheLifeBeforeTheValue(t *testing.T) {
	srv, client := private(t)
	s := open(t, client, rediscache.Config{Prefix: "p"})
	set(t, s, "k", "v")
	require.Equal(t, []string{"PTTL", "GET"}, srv.Commands(t, func() { requireValue(t, s, "k", "v") }))
}

func TestWatchTellsOfExpiryEvictionAndFlush(t *testing.T) {
	srv, client := private(t)
	s := open(t, client, rediscache.Config{Prefix: "p"})
	other := open(t, client, rediscache.Config{Prefix: "other"})
	w := redistest.Watch(t, s)
	set(t, other, "k", "v") // would be told first
	require.NoError(t, s.Set(within(t, time.Minute), "short", cache.Entry[string]{TTL: 50 * time.Millisecond}))
	w.AwaitChanged(t, "short")
	w.AwaitChanged(t, "short") // nobody asks for it: Redis itself finds it expired
	srv.Do(t, "SET", "p:v:{=foreign}", "x")
	w.AwaitChanged(t, "foreign")
	srv.Do(t, "DEL", "p:v:{=foreign}")
	w.AwaitChanged(t, "foreign")
	srv.Do(t, "FLUSHDB")
	w.AwaitLost(t, time.Minute)
	w.RequireListening(t, s)
}

func TestWatchPassesKeysOfOtherTypes(t *testing.T) {
	_, client := private(t)
	s, err := rediscache.New[int16, string](client, rediscache.Config{Prefix: "p"})
	require.NoError(t, err)
	changed, lost := make(chan int16, 10), make(chan struct{}, 10)
	ctx, cancel := context.WithCancel(within(t, time.Minute))
	ended := make(chan error)
	go func() { ended <- s.Watch(ctx, func(key int16) { changed <- key }, func() { lost <- struct{}{} }) }()
	<-lost
	raw(t, client, "p", "99999", "no int16")
	raw(t, client, "p", "007", "not written so")
	require.NoError(t, s.Set(ctx, -7, cache.Entry[string]{}))
	require.Equal(t, int16(-7), <-changed)
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	require.Empty(t, changed)
}

func TestWatchIsRefusedWithoutNotices(t *testing.T) {
	opt, err := rediscache.ClientOption(redistest.SharedURL(t))
	require.NoError(t, err)
	opt.AlwaysRESP2, opt.DisableCache = true, true
	client, err := rueidis.NewClient(opt)
	require.NoError(t, err)
	t.Cleanup(client.Close)
	s := open(t, client, rediscache.Config{})
	err = s.Watch(within(t, time.Minute), func(string) {}, func() { t.Error("lost was called") })
	require.ErrorIs(t, err, rediscache.ErrNoNotices)
	var e *rediscache.Error
	require.ErrorAs(t, err, &e)
	require.True(t, e.Permanent())
}

func TestNewRefuses(t *testing.T) {
	client, _ := shared(t)
	type pair [2]int
	for want, err := range map[string]error{
		"the client is nil":                  newError[string, string](nil, rediscache.Config{Prefix: "p"}),
		"Config.Prefix is \"\"":              newError[string, string](client, rediscache.Config{}),
		"Config.Prefix is \"a{b\"":           newError[string, string](client, rediscache.Config{Prefix: "a{b"}),
		"Config.MaxValueSize is -1":          newError[string, string](client, rediscache.Config{Prefix: "p", MaxValueSize: -1}),
		"say with WithKey":                   newError[pair, string](client, rediscache.Config{Prefix: "p"}),
		"keys of type float64":               newError[float64, string](client, rediscache.Config{Prefix: "p"}),
		"two functions for values of type":   newError[string, string](client, rediscache.Config{Prefix: "p"}, rediscache.WithCodec[int](nil, nil)),
		"two functions for keys of type":     newError[string, string](client, rediscache.Config{Prefix: "p"}, rediscache.WithKey[string](nil, nil)),
		"NewWithConn: the connection is nil": withConnError(nil, rediscache.Config{Prefix: "p"}),
	} {
		require.ErrorContains(t, err, want)
		require.ErrorContains(t, err, "rediscache")
	}
}

func newError[K comparable, V any](client rueidis.Client, cfg rediscache.Config, opts ...rediscache.Option) error {
	_, err := rediscache.New[K, V](client, cfg, opts...)
	return err
}

func withConnError(conn rediscache.Conn, cfg rediscache.Config) error {
	_, err := rediscache.NewWithConn[string, string](conn, cfg)
	return err
}

func TestKeysOfManyTypes(t *testing.T) {
	client, prefix := shared(t)
	type id string
	type number uint8
	stores(t, client, prefix+"-a", id("x{}"), "x{}")
	stores(t, client, prefix+"-b", number(255), "255")
	stores(t, client, prefix+"-c", int64(-1<<63), "-9223372036854775808")
	type pair struct{ A, B int }
	stores(t, client, prefix+"-d", pair{1, 2}, `{"A":1,"B":2}`, rediscache.WithKey(
		func(p pair) string { text, _ := json.Marshal(p); return string(text) },
		func(text string) (p pair, err error) { err = json.Unmarshal([]byte(text), &p); return p, err }))
}

// stores checks that key is written as want.
func stores[K comparable](t *testing.T, client rueidis.Client, prefix string, key K, want string, opts ...rediscache.Option) {
	t.Helper()
	s, err := rediscache.New[K, []byte](client, rediscache.Config{Prefix: prefix}, opts...)
	require.NoError(t, err)
	ctx := within(t, time.Minute)
	require.NoError(t, s.Set(ctx, key, cache.Entry[[]byte]{Value: []byte{0, 255}}))
	e, ok, err := s.Get(ctx, key)
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, []byte{0, 255}, e.Value)
	n, err := client.Do(ctx, client.B().Exists().Key(prefix+":v:{="+want+"}").Build()).AsInt64()
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
	require.NoError(t, s.Delete(ctx, key))
}

func TestCodecIsUsed(t *testing.T) {
	client, prefix := shared(t)
	refuse := errors.New("refused")
	s, err := rediscache.New[string, bool](client, rediscache.Config{Prefix: prefix}, rediscache.WithCodec(
		func(dst []byte, v bool) ([]byte, error) {
			return append(dst, map[bool]string{true: "yes", false: "no"}[v]...), nil
		},
		func(data []byte) (bool, error) {
			if string(data) == "no" {
				return false, refuse
			}
			return true, nil
		}))
	require.NoError(t, err)
	ctx := within(t, time.Minute)
	for _, v := range []bool{true, false} {
		require.NoError(t, s.Set(ctx, "k", cache.Entry[bool]{Value: v}))
		e, ok, err := s.Get(ctx, "k")
		require.NoError(t, err)
		require.Equal(t, v, ok)
		require.Equal(t, v, e.Value)
	}
}

func TestConfigIsReadFromJSON(t *testing.T) {
	var cfg rediscache.Config
	require.NoError(t, json.Unmarshal([]byte(`{"name":"users","prefix":"u","max_value_size":9}`), &cfg))
	require.Equal(t, rediscache.Config{Name: "users", Prefix: "u", MaxValueSize: 9}, cfg)
	require.ErrorContains(t, json.Unmarshal([]byte(`{"prefx":"u"}`), &cfg), "prefx")
	text, err := json.Marshal(rediscache.Config{Prefix: "u"})
	require.NoError(t, err)
	require.JSONEq(t, `{"prefix":"u"}`, string(text))
}

func TestDescribeAndMetrics(t *testing.T) {
	client, prefix := shared(t)
	s := open(t, client, rediscache.Config{Prefix: prefix})
	kind, name, cfg := s.Describe()
	require.Equal(t, "rediscache", kind)
	require.Equal(t, prefix, name)
	require.Equal(t, rediscache.Config{Name: prefix, Prefix: prefix, MaxValueSize: 1 << 20}, cfg)
	raw(t, client, prefix, "k", "x")
	requireNone(t, s, "k")
	require.Equal(t, map[string]float64{"undecodable_total": 1, "too_large_total": 0, "notices_lost_total": 0},
		maps.Collect(s.Metrics()))
}
