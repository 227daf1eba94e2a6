package rediscache_test

import (
	"context"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/redis/internal/redistest"
	"github.com/backstay-go/backstay/backend/redis/rediscache"
)

func TestEveryCallIsBoundedWhileTheServerIsStopped(t *testing.T) {
	srv, client := private(t)
	s := open(t, client, rediscache.Config{})
	l := lease(t, s, "leased", 0)
	srv.Stop(t)
	for range 3 { // the later rounds meet connections that have been given up
		redistest.RequireFailing(t, s, l, rediscache.ErrUnanswered)
	}
	srv.Continue(t)
	redistest.RequireWorking(t, s)
}

// A lease may last longer than the call that asks for it: the deadline of that call's context comes after its end.
func TestEveryCallEndsWithItsContextBeforeTheDeadline(t *testing.T) {
	srv, client := private(t)
	s := open(t, client, rediscache.Config{})
	l := lease(t, s, "leased", 0)
	srv.Stop(t)
	redistest.RequireEndingEarly(t, s, l)
	srv.Continue(t)
	redistest.RequireWorking(t, s)

	srv.Do(t, "CLIENT", "KILL", "TYPE", "normal") // now a call begins with connecting
	srv.Stop(t)
	redistest.RequireEndingEarly(t, s, l)
	srv.Continue(t)
	redistest.RequireWorking(t, s)
}

func TestEveryCallFailsWhileTheServerIsDead(t *testing.T) {
	srv, client := private(t)
	s := open(t, client, rediscache.Config{})
	set(t, s, "old", "v")
	l := lease(t, s, "leased", 0)
	srv.Kill(t)
	redistest.RequireFailing(t, s, l, rediscache.ErrUnanswered)
	srv.Restart(t)
	redistest.RequireWorking(t, s) // the scripts, too, are gone
	requireNone(t, s, "old")
	ok, err := l.Fill(within(t, time.Minute), entry("from before"))
	require.NoError(t, err)
	require.False(t, ok, "a lease has outlived the server that granted it")
	requireNone(t, s, "leased")
}

// A lost answer leaves a write in doubt: it has been made, and the caller is told that it may not have been.
func TestLostAnswersAreInDoubt(t *testing.T) {
	srv := redistest.Start(t)
	proxy := redistest.NewProxy(t, srv.Addr)
	direct := open(t, dial(t, "redis://"+srv.Addr), rediscache.Config{Prefix: "p"})
	opt, err := rediscache.ClientOption("redis://" + proxy.Addr)
	require.NoError(t, err)
	opt.PipelineMultiplex = -1 // one connection, which is warm
	opt.Dialer.KeepAlive = time.Hour
	client, err := rueidis.NewClient(opt)
	require.NoError(t, err)
	t.Cleanup(client.Close)
	s := open(t, client, rediscache.Config{Prefix: "p"})
	redistest.RequireWorking(t, s)

	proxy.CutReply()
	require.ErrorIs(t, s.Set(within(t, time.Minute), "k", entry("set")), rediscache.ErrUnanswered)
	requireValue(t, direct, "k", "set")

	redistest.RequireWorking(t, s)
	l := lease(t, s, "filled", 0)
	proxy.CutReply()
	_, err = l.Fill(within(t, time.Minute), entry("filled"))
	require.ErrorIs(t, err, rediscache.ErrUnanswered)
	requireValue(t, direct, "filled", "filled")

	redistest.RequireWorking(t, s)
	proxy.CutReply()
	require.ErrorIs(t, s.Delete(within(t, time.Minute), "k"), rediscache.ErrUnanswered)
	requireNone(t, direct, "k")
}

func TestServerErrorsAreRefusals(t *testing.T) {
	srv, client := private(t)
	s := open(t, client, rediscache.Config{Name: "users"})
	set(t, s, "k", "before")
	srv.Do(t, "CONFIG", "SET", "maxmemory", "1")
	err := s.Set(within(t, time.Minute), "k", entry("after"))
	require.ErrorIs(t, err, rediscache.ErrRefused)
	require.ErrorContains(t, err, `rediscache "users": set: refused by Redis: `)
	require.ErrorContains(t, err, "OOM")
	requireValue(t, s, "k", "before")
	require.NoError(t, s.Delete(within(t, time.Minute), "k"), "a full server still deletes")
	requireNone(t, s, "k")
}

func TestCancelledCallsReturnAtOnce(t *testing.T) {
	srv, client := private(t)
	s := open(t, client, rediscache.Config{})
	set(t, s, "k", "v")
	srv.Stop(t)
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() {
		_, _, err := s.Get(ctx, "k")
		failed <- err
	}()
	cancel()
	select {
	case err := <-failed:
		require.ErrorIs(t, err, context.Canceled)
	case <-time.After(time.Minute):
		t.Error("Get outlived its context")
	}
	srv.Continue(t)
}

func TestWatchListensAgainAfterARestart(t *testing.T) {
	srv, client := private(t)
	s := open(t, client, rediscache.Config{})
	w := redistest.Watch(t, s)
	srv.Restart(t)
	redistest.RequireWorking(t, s)
	w.AwaitLost(t, time.Minute)
	w.RequireListening(t, s)
	require.GreaterOrEqual(t, s.Stats().NoticesLost, uint64(2))
}

// A half-dead connection carries nothing and is not closed. With rueidis's own options, the client would need eleven
// seconds to notice.
func TestWatchNoticesASilentConnectionWithinFiveSeconds(t *testing.T) {
	srv := redistest.Start(t)
	proxy := redistest.NewProxy(t, srv.Addr)
	client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{proxy.Addr}})
	require.NoError(t, err)
	t.Cleanup(client.Close)
	s := open(t, client, rediscache.Config{})
	w := redistest.Watch(t, s)
	w.Forget()
	pulse, start := redistest.NewPulse(t), time.Now()
	proxy.Freeze()
	w.AwaitLost(t, time.Minute)
	require.Less(t, time.Since(start), pulse.Bound(5*time.Second))
	w.RequireListening(t, s)
}
