package rediscache_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/redis/internal/redistest"
	"github.com/backstay-go/backstay/backend/redis/rediscache"
	"github.com/backstay-go/backstay/cache"
)

// The nodes of these tests meet one fault each, while they are read and deleted from.
func survives(t *testing.T, fault func(t *testing.T, srv *redistest.Server, proxy *redistest.Proxy) redistest.Fault) {
	arranged(t, func(t *testing.T, arrange func(store) cache.Option) {
		srv := redistest.Start(t)
		proxy := redistest.NewProxy(t, srv.Addr)
		redistest.RequireSurviving(t, fault(t, srv, proxy), arrange, func() store {
			return open(t, dial(t, "redis://"+proxy.Addr), rediscache.Config{Prefix: "nodes"})
		})
	})
}

func TestNodesSurviveAServerThatIsKilledAndComesBackEmpty(t *testing.T) {
	survives(t, func(t *testing.T, srv *redistest.Server, _ *redistest.Proxy) redistest.Fault {
		return redistest.Fault{Inject: func() { srv.Kill(t) }, Heal: func() { srv.Restart(t) }, Lasts: 2 * time.Second}
	})
}

func TestNodesSurviveAServerThatStops(t *testing.T) {
	survives(t, func(t *testing.T, srv *redistest.Server, _ *redistest.Proxy) redistest.Fault {
		return redistest.Fault{Inject: func() { srv.Stop(t) }, Heal: func() { srv.Continue(t) }, Lasts: 2 * time.Second}
	})
}

func TestNodesSurviveConnectionsThatAreCut(t *testing.T) {
	survives(t, func(_ *testing.T, _ *redistest.Server, proxy *redistest.Proxy) redistest.Fault {
		return redistest.Fault{Inject: proxy.Cut, Heal: proxy.Mend, Lasts: 2 * time.Second}
	})
}

// Nobody heals them: the clients have to give them up.
func TestNodesSurviveConnectionsThatGoSilent(t *testing.T) {
	survives(t, func(_ *testing.T, _ *redistest.Server, proxy *redistest.Proxy) redistest.Fault {
		return redistest.Fault{Inject: proxy.Freeze, Heal: func() {}, Lasts: 1500 * time.Millisecond, Passes: true}
	})
}

func TestNodesSurviveAnswersThatComeTooLate(t *testing.T) {
	survives(t, func(_ *testing.T, _ *redistest.Server, proxy *redistest.Proxy) redistest.Fault {
		return redistest.Fault{Inject: func() { proxy.Slow(600 * time.Millisecond) }, Heal: proxy.Mend, Lasts: 2 * time.Second}
	})
}

// What is to be ended has the client's timeouts to end.
func TestClosingIsBoundedWhileTheServerIsStopped(t *testing.T) {
	srv, client := private(t)
	s := open(t, client, rediscache.Config{})
	c := cache.New(redistest.NewSource("v").Load, cache.Config{}, cache.WithL2[string, string](s))
	_, err := c.Get(t.Context(), "k")
	require.NoError(t, err)
	redistest.Eventually(t, "it listens", func() bool { return s.Stats().NoticesLost > 0 })
	srv.Stop(t)
	pulse, start := redistest.NewPulse(t), time.Now()
	require.NoError(t, c.Close())
	require.Less(t, time.Since(start), pulse.Bound(4*time.Second))
}
