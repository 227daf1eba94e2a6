package goredis_test

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/redis/goredis"
	"github.com/backstay-go/backstay/backend/redis/internal/redistest"
	"github.com/backstay-go/backstay/backend/redis/rediscache"
	"github.com/backstay-go/backstay/cache"
)

func TestEveryCallIsBoundedWhileTheServerIsStopped(t *testing.T) {
	srv := redistest.Start(t)
	s := open(t, dial(t, "redis://"+srv.Addr), "p")
	l := redistest.Granted(t, s, "leased")
	srv.Stop(t)
	for range 3 {
		redistest.RequireFailing(t, s, l, rediscache.ErrUnanswered)
	}
	srv.Continue(t)
	redistest.RequireWorking(t, s)
}

func TestEveryCallEndsWithItsContextBeforeTheDeadline(t *testing.T) {
	srv := redistest.Start(t)
	s := open(t, dial(t, "redis://"+srv.Addr), "p")
	l := redistest.Granted(t, s, "leased")
	srv.Stop(t)
	redistest.RequireEndingEarly(t, s, l)
	srv.Continue(t)
	redistest.RequireWorking(t, s)
}

func TestEveryCallFailsWhileTheServerIsDead(t *testing.T) {
	srv := redistest.Start(t)
	s := open(t, dial(t, "redis://"+srv.Addr), "p")
	l := redistest.Granted(t, s, "leased")
	srv.Kill(t)
	redistest.RequireFailing(t, s, l, rediscache.ErrUnanswered)
	srv.Restart(t)
	redistest.RequireWorking(t, s) // the scripts, too, are gone
	ok, err := l.Fill(within(t, time.Minute), entry("from before"))
	require.NoError(t, err)
	require.False(t, ok, "a lease has outlived the server that granted it")
}

// The client repeats what was not answered; that must not be taken for another caller, nor end in a doubt.
func TestLostAnswersAreRepeated(t *testing.T) {
	srv := redistest.Start(t)
	proxy := redistest.NewProxy(t, srv.Addr)
	s := open(t, dial(t, "redis://"+proxy.Addr), "p")
	redistest.RequireWorking(t, s)
	proxy.CutReply()
	l := redistest.Granted(t, s, "k")
	proxy.CutReply()
	ok, err := l.Fill(within(t, time.Minute), entry("filled"))
	require.NoError(t, err)
	require.True(t, ok)
	proxy.CutReply()
	e, ok, err := s.Get(within(t, time.Minute), "k")
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, "filled", e.Value)
}

func TestServerErrorsAreRefusals(t *testing.T) {
	srv := redistest.Start(t)
	s := open(t, dial(t, "redis://"+srv.Addr), "p")
	srv.Do(t, "LPUSH", "p:v:{=list}", "x")
	srv.Do(t, "CONFIG", "SET", "maxmemory", "1")
	err := s.Set(within(t, time.Minute), "k", entry("v"))
	require.ErrorIs(t, err, rediscache.ErrRefused)
	require.ErrorContains(t, err, `rediscache "p": set: refused by Redis: OOM`)
	_, ok, err := s.Get(within(t, time.Minute), "list")
	require.NoError(t, err)
	require.False(t, ok)
}

// Between the commands of a Get somebody may replace the entry. An old value with the remaining life of its successor would
// seem young.
func TestGetAsksForTheLifeBeforeTheValue(t *testing.T) {
	srv := redistest.Start(t)
	s := open(t, dial(t, "redis://"+srv.Addr), "p")
	redistest.RequireWorking(t, s)
	require.Equal(t, []string{"PTTL", "GET"}, srv.Commands(t, func() {
		_, ok, err := s.Get(within(t, time.Minute), "working")
		require.NoError(t, err)
		require.True(t, ok)
	}))
}

func TestWatchTellsOfExpiryAndFlush(t *testing.T) {
	srv := redistest.Start(t)
	client := dial(t, "redis://"+srv.Addr)
	s, other := open(t, client, "p"), open(t, client, "other")
	w := redistest.Watch(t, s)
	require.NoError(t, other.Set(within(t, time.Minute), "k", entry("v"))) // would be told first
	short := entry("short")
	short.TTL = 50 * time.Millisecond
	require.NoError(t, s.Set(within(t, time.Minute), "short", short))
	w.AwaitChanged(t, "short")
	w.AwaitChanged(t, "short") // nobody asks for it: Redis itself finds it expired
	srv.Do(t, "FLUSHDB")
	w.AwaitLost(t, time.Minute)
	w.RequireListening(t, s)
}

func TestNodesSurviveAServerThatStops(t *testing.T) {
	for name, arrange := range map[string]func(store) cache.Option{
		"store alone": cache.WithStore[string, string], "two levels": cache.WithL2[string, string],
	} {
		t.Run(name, func(t *testing.T) {
			srv := redistest.Start(t)
			fault := redistest.Fault{Inject: func() { srv.Stop(t) }, Heal: func() { srv.Continue(t) }, Lasts: 2 * time.Second}
			redistest.RequireSurviving(t, fault, arrange, func() store { return open(t, dial(t, "redis://"+srv.Addr), "nodes") })
		})
	}
}

func TestWatchListensAgainAfterARestart(t *testing.T) {
	srv := redistest.Start(t)
	s := open(t, dial(t, "redis://"+srv.Addr), "p")
	w := redistest.Watch(t, s)
	srv.Restart(t)
	w.AwaitLost(t, time.Minute)
	w.RequireListening(t, s)
}

// A half-dead connection carries nothing and is not closed.
func TestWatchNoticesASilentConnectionWithinFiveSeconds(t *testing.T) {
	srv := redistest.Start(t)
	proxy := redistest.NewProxy(t, srv.Addr)
	s := open(t, dial(t, "redis://"+proxy.Addr), "p")
	w := redistest.Watch(t, s)
	w.Forget()
	pulse, start := redistest.NewPulse(t), time.Now()
	proxy.Freeze()
	w.AwaitLost(t, time.Minute)
	require.Less(t, time.Since(start), pulse.Bound(5*time.Second))
	w.RequireListening(t, s)
}

func TestWatchPreparesConnectionsAsTheClientDoes(t *testing.T) {
	srv := redistest.Start(t, "--requirepass", "secret")
	connected := make(chan struct{}, 100)
	client := redis.NewClient(&redis.Options{Addr: srv.Addr, Password: "secret", ContextTimeoutEnabled: true, DB: 3,
		OnConnect: func(context.Context, *redis.Conn) error { connected <- struct{}{}; return nil }})
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	s := open(t, client, "p")
	redistest.Watch(t, s).RequireListening(t, s)
	require.Len(t, connected, 2, "one connection for commands, one for notices")
}

func TestNewRefuses(t *testing.T) {
	opt := redis.Options{Addr: "127.0.0.1:1"}
	caching := opt
	caching.ContextTimeoutEnabled = true
	caching.Protocol = 3
	caching.ClientSideCacheConfig = &redis.ClientSideCacheConfig{}
	ring := redis.NewRing(&redis.RingOptions{Addrs: map[string]string{"a": "127.0.0.1:1"}})
	good := opt
	good.ContextTimeoutEnabled = true
	for want, c := range map[string]struct {
		client redis.UniversalClient
		cfg    rediscache.Config
	}{
		"the client is a <nil>":       {nil, rediscache.Config{Prefix: "p"}},
		"the client is a *redis.Ring": {ring, rediscache.Config{Prefix: "p"}},
		"set ContextTimeoutEnabled":   {redis.NewClient(&opt), rediscache.Config{Prefix: "p"}},
		"make one without ClientSide": {redis.NewClient(&caching), rediscache.Config{Prefix: "p"}},
		"Config.Prefix is \"\"":       {redis.NewClient(&good), rediscache.Config{}},
	} {
		_, err := goredis.New[string, string](c.client, c.cfg)
		require.ErrorContains(t, err, want)
		if c.client != nil {
			require.NoError(t, c.client.Close())
		}
	}
}
