package rabbitpubsub_test

import (
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/rabbitmq/rabbitpubsub"
	"github.com/backstay-go/backstay/pubsub"
)

// bothWays runs test for an unordered subscription and an ordered one at the same time.
func bothWays(t *testing.T, test func(t *testing.T, ordered bool)) {
	t.Helper()
	var wg sync.WaitGroup
	for _, order := range []bool{false, true} {
		wg.Go(func() { t.Run(fmt.Sprint("ordered=", order), func(t *testing.T) { test(t, order) }) })
	}
	wg.Wait()
}

// faulty is what a driver needs to notice a silent broker soon.
var faulty = rabbitpubsub.Config{PublishTimeout: 4 * time.Second, Heartbeat: 2 * time.Second}

// declared is how long the server takes to write down a queue: version 3.10 forgets how to elect the leader of one that it
// was killed too soon after, and nobody can use that queue any more.
const declared = 3 * time.Second

// trafficBothWays runs traffic of both kinds at the same time, for faults of the whole server.
func trafficBothWays(t *testing.T, url string) []*traffic {
	t.Helper()
	var all []*traffic
	for _, order := range []bool{false, true} {
		d := newDriver(t, url, faulty)
		all = append(all, startTraffic(t, d, d, order))
	}
	for begun := time.Now(); time.Since(begun) < declared; {
		for _, tr := range all {
			tr.more(t, 100)
		}
	}
	return all
}

// strikeServer injects a fault while a Publish of each traffic is under way.
func strikeServer(t *testing.T, all []*traffic, fault func()) {
	t.Helper()
	for _, tr := range all {
		tr.more(t, 200)
	}
	for _, tr := range all {
		tr.awaitPublish(t)
	}
	fault()
	for _, tr := range all {
		tr.more(t, 200)
	}
}

// The private server is struck by one test after the other, beside those of the shared one.
func TestGuaranteePrivateServer(t *testing.T) {
	t.Parallel()
	n := privateNode(t)
	t.Run("encrypted connection", func(t *testing.T) { encryptedConnection(t, n) })
	t.Run("stranger refused", func(t *testing.T) { strangerRefused(t, n) })
	t.Run("restart loses nothing", func(t *testing.T) { restartLosesNothing(t, n) })
	t.Run("stopped server loses nothing", func(t *testing.T) { stoppedServerLosesNothing(t, n) })
	t.Run("blocked connection", func(t *testing.T) { blockedConnection(t, n) })
}

// The server is killed, or stopped and started, in the middle of confirming.
func restartLosesNothing(t *testing.T, n *node) {
	all := trafficBothWays(t, n.url())
	rounds := 1
	if long() {
		rounds = 10
	}
	for range rounds {
		strikeServer(t, all, func() { n.again(t, syscall.SIGKILL) })
		if long() {
			strikeServer(t, all, func() { n.again(t, syscall.SIGTERM) })
		}
	}
	for _, tr := range all {
		tr.finish(t)
	}
}

// The server stands still for longer than a lease, and for longer than connections wait for a sign of life.
func stoppedServerLosesNothing(t *testing.T, n *node) {
	all := trafficBothWays(t, n.url())
	pauses := []time.Duration{faultLease + faultLease/2}
	if long() {
		pauses = append(pauses, 4*faulty.Heartbeat)
	}
	for _, pause := range pauses {
		strikeServer(t, all, func() {
			require.NoError(t, n.cmd.Process.Signal(syscall.SIGSTOP))
			<-time.After(pause)
			require.NoError(t, n.cmd.Process.Signal(syscall.SIGCONT))
		})
	}
	for _, tr := range all {
		tr.finish(t)
		require.Less(t, time.Duration(tr.slowest.Load()), faulty.PublishTimeout+30*time.Second)
	}
}

// The memory alarm of the server is on: it takes no messages, and still delivers. Publish returns in time and says that
// what was not sent was not executed; when the alarm is over, it goes on.
func blockedConnection(t *testing.T, n *node) {
	cfg := faulty
	cfg.PublishTimeout = time.Second
	d := newDriver(t, n.url(), cfg)
	r := open(t, d)
	publish(t, d, message("before", ""))

	n.ctl(t, "set_vm_memory_high_watermark", "0.0000001")
	first := d.Publish(t.Context(), []pubsub.Message{message("first", "")}) // which the server answers with the alarm
	require.Len(t, first, 1)
	require.ErrorIs(t, first[0], pubsub.ErrInDoubt)
	begun := time.Now()
	errs := d.Publish(t.Context(), []pubsub.Message{message("second", "")})
	require.Less(t, time.Since(begun), cfg.PublishTimeout+10*time.Second)
	require.Len(t, errs, 1)
	require.ErrorIs(t, errs[0], rabbitpubsub.ErrBlocked)
	require.NotErrorIs(t, errs[0], pubsub.ErrInDoubt)
	got := receive(t, r, 1)
	require.Equal(t, "before", got[0].ID)
	settle(t, r, pubsub.Ack, got...)

	n.ctl(t, "set_vm_memory_high_watermark", "0.4")
	require.Eventually(t, func() bool {
		return d.Publish(t.Context(), []pubsub.Message{message("after", "")}) == nil
	}, patience, 10*time.Millisecond)
	seen := make(map[string]bool)
	for !seen["after"] {
		got := receive(t, r, 1)
		seen[got[0].ID] = true
		settle(t, r, pubsub.Ack, got...)
	}
	require.False(t, seen["second"], "it was said not to be sent")
	require.NoError(t, r.Close())
}

// fault is something done to the connections through a proxy.
type fault struct {
	name string
	do   func(p *proxy)
}

var faults = []fault{
	{"cut", func(p *proxy) { p.cut(false) }},
	{"reset", func(p *proxy) { p.cut(true) }},
	{"stalled", func(p *proxy) {
		p.stall()
		<-time.After(1500 * time.Millisecond)
		p.resume()
	}},
	{"stalled and cut", func(p *proxy) {
		p.stall()
		<-time.After(1500 * time.Millisecond)
		p.cut(true)
		p.resume()
	}},
}

// Publisher and consumer have connections of their own, with every fault; nothing that was acknowledged is lost, nothing
// comes out of order, and no Publish takes longer than it may.
func TestGuaranteeFaultyConnectionLosesNothing(t *testing.T) {
	t.Parallel()
	url := shared(t)
	bothWays(t, func(t *testing.T, order bool) {
		p := newProxy(t, url)
		cfg := faulty
		cfg.Prefix = freshPrefix()
		tr := startTraffic(t, newDriver(t, p.url(), cfg), newDriver(t, p.url(), cfg), order)
		for _, f := range faults {
			tr.strike(t, 1, 100, func() { f.do(p) })
		}
		tr.finish(t)
		require.Less(t, time.Duration(tr.slowest.Load()), cfg.PublishTimeout+10*time.Second)
		require.Positive(t, tr.publisher.Stats().Reconnects)
	})
}
