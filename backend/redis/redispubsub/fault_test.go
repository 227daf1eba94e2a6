package redispubsub_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/redis/internal/redistest"
	"github.com/backstay-go/backstay/backend/redis/redispubsub"
	"github.com/backstay-go/backstay/pubsub"
)

// atOnce runs a subtest for each case at the same time: they wait more than they work.
func atOnce[C any](t *testing.T, cases []C, name func(C) string, test func(t *testing.T, c C)) {
	t.Helper()
	t.Parallel()
	var wg sync.WaitGroup
	for _, c := range cases {
		wg.Go(func() { t.Run(name(c), func(t *testing.T) { test(t, c) }) })
	}
	wg.Wait()
}

// bothWays runs test for an unordered subscription and an ordered one.
func bothWays(t *testing.T, test func(t *testing.T, ordered bool)) {
	t.Helper()
	atOnce(t, []bool{false, true}, func(ordered bool) string { return fmt.Sprint("ordered=", ordered) }, test)
}

// durable is a private server that writes and fsyncs its append-only file before it answers.
func durable(t *testing.T) *redistest.Server {
	t.Helper()
	return redistest.Start(t, "--appendonly", "yes", "--appendfsync", "always")
}

func url(srv *redistest.Server) string { return "redis://" + srv.Addr }

// hasty is a client that notices soon what has happened to its connection.
func hasty(t *testing.T, addr string) rueidis.Client {
	t.Helper()
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{addr}, ConnWriteTimeout: 3 * time.Second, DisableCache: true, ForceSingleClient: true,
	})
	require.NoError(t, err)
	t.Cleanup(client.Close)
	return client
}

func TestGuaranteeKilledServerLosesNothing(t *testing.T) {
	bothWays(t, func(t *testing.T, ordered bool) {
		srv := durable(t)
		d := newDriver(t, dial(t, url(srv)), redispubsub.Config{Prefix: "p"})
		require.True(t, d.Capabilities().Durable)
		require.Contains(t, d.Capabilities().Durability, "fsynced before the answer")
		tr := startTraffic(t, d, d, ordered)
		tr.strike(t, 2, 200, func() { srv.Restart(t) }) // SIGKILL
		tr.finish(t)
	})
}

// A server that stands still for longer than the leases has them all run out.
func TestGuaranteeStoppedServerLosesNothing(t *testing.T) {
	bothWays(t, func(t *testing.T, ordered bool) {
		srv := durable(t)
		d := newDriver(t, hasty(t, srv.Addr), redispubsub.Config{Prefix: "p"})
		tr := startTraffic(t, d, d, ordered)
		tr.strike(t, 1, 200, func() {
			srv.Stop(t)
			<-time.After(3 * faultLease / 2)
			srv.Continue(t)
		})
		tr.finish(t)
	})
}

// fault is something done to the connections through a proxy.
type fault struct {
	name string
	do   func(p *redistest.Proxy)
}

var faults = []fault{
	{"cut", func(p *redistest.Proxy) {
		p.Cut()
		p.Mend()
	}},
	{"answer lost", func(p *redistest.Proxy) { p.CutReply() }},
	{"silent", func(p *redistest.Proxy) { p.Freeze() }},
	{"slow and cut", func(p *redistest.Proxy) {
		p.Slow(time.Second)
		<-time.After(1500 * time.Millisecond)
		p.Cut()
		p.Mend()
	}},
}

// Publisher and consumer have a connection each through one proxy, with every fault; nothing that was acknowledged is
// lost.
func TestGuaranteeFaultyConnectionLosesNothing(t *testing.T) {
	type faultCase struct {
		fault
		ordered bool
	}
	var cases []faultCase
	for _, f := range faults {
		cases = append(cases, faultCase{f, false}, faultCase{f, true})
	}
	name := func(c faultCase) string { return fmt.Sprint(c.name, " ordered=", c.ordered) }
	atOnce(t, cases, name, func(t *testing.T, c faultCase) {
		srv := redistest.Start(t)
		p := redistest.NewProxy(t, srv.Addr)
		publisher := newDriver(t, hasty(t, p.Addr), redispubsub.Config{Prefix: "p"})
		consumer := newDriver(t, hasty(t, p.Addr), redispubsub.Config{Prefix: "p"})
		tr := startTraffic(t, publisher, consumer, c.ordered)
		strikes := 2
		if c.name == "silent" { // which takes seconds to notice
			strikes = 1
		}
		tr.strike(t, strikes, 100, func() { c.do(p) })
		tr.finish(t)
	})
}

// Publish says in doubt when the answer is lost, and only then.
func TestGuaranteePublishSaysWhatIsInDoubt(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t)
	p := redistest.NewProxy(t, srv.Addr)
	d := newDriver(t, hasty(t, p.Addr), redispubsub.Config{Prefix: "p"})
	publish(t, d, message("1", "k"))
	for _, batch := range [][]pubsub.Message{{message("2", "k")}, {message("3", "k"), message("4", "k")}} {
		p.CutReply()
		errs := d.Publish(soon(t), batch)
		require.Len(t, errs, len(batch))
		for _, err := range errs {
			require.ErrorIs(t, err, pubsub.ErrInDoubt)
		}
		redistest.Eventually(t, "it connects again", func() bool {
			return d.Publish(soon(t), []pubsub.Message{message("again", "k")}) == nil
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	errs := d.Publish(ctx, []pubsub.Message{message("5", "k")})
	require.ErrorIs(t, errs[0], context.Canceled)
	require.NotErrorIs(t, errs[0], pubsub.ErrInDoubt, "it was not sent")

	srv.Do(t, "CONFIG", "SET", "maxmemory", "1")
	errs = d.Publish(soon(t), []pubsub.Message{message("6", "k"), message("7", "k")})
	for _, err := range errs {
		require.ErrorContains(t, err, "OOM")
		require.NotErrorIs(t, err, pubsub.ErrInDoubt, "the server has refused it")
	}
	direct := newDriver(t, hasty(t, srv.Addr), redispubsub.Config{Prefix: "p"})
	srv.Do(t, "CONFIG", "SET", "maxmemory", "0")
	publish(t, direct, message("8", "k"))
	srv.Kill(t)
	require.Eventually(t, func() bool { // once the broken connection is forgotten
		errs = direct.Publish(soon(t), []pubsub.Message{message("9", "k")})
		return !errors.Is(errs[0], pubsub.ErrInDoubt)
	}, patience, 10*time.Millisecond)
	require.ErrorContains(t, errs[0], "refused")
}

// Acknowledgements that the server may not have are told.
func TestCloseSaysWhatIsInDoubt(t *testing.T) {
	bothWays(t, func(t *testing.T, ordered bool) {
		srv := redistest.Start(t)
		d := newDriver(t, dial(t, url(srv)), redispubsub.Config{Prefix: "p"})
		publish(t, d, message("1", "k"), message("2", "k"))
		s := func(s *pubsub.Subscription) { s.Ordered = ordered }
		done, undone := open(t, d, s), open(t, d, func(s *pubsub.Subscription) { s.Ordered, s.Group = ordered, "other" })
		settle(t, done, pubsub.Ack, receive(t, done, 2)...)
		require.NoError(t, done.Close())
		ds := receive(t, undone, 2)
		srv.Stop(t)
		defer srv.Continue(t)
		settle(t, undone, pubsub.Ack, ds...) // does not block
		err := undone.Close()
		require.ErrorIs(t, err, pubsub.ErrInDoubt)
		require.ErrorContains(t, err, "2 acknowledgements")
		require.Equal(t, err, undone.Close())
	})
}

// What a flush takes away is told, and opening the subscription again brings in order what was published since.
func TestFlushedServerIsAClearErrorAndRecoversInOrder(t *testing.T) {
	bothWays(t, func(t *testing.T, ordered bool) {
		srv := redistest.Start(t)
		d := newDriver(t, dial(t, url(srv)), redispubsub.Config{Prefix: "p"})
		subscription := func(s *pubsub.Subscription) { s.Ordered, s.Lease = ordered, 4*time.Second }
		r := open(t, d, subscription)
		publish(t, d, message("before", "k"))
		settle(t, r, pubsub.Ack, receive(t, r, 1)...)
		srv.Do(t, "FLUSHALL")
		var want []string
		for i := range 20 {
			want = append(want, fmt.Sprint(i))
			publish(t, d, message(want[i], "k"))
		}
		var err error
		for err == nil {
			_, err = r.Receive(soon(t), 10)
		}
		require.ErrorIs(t, err, redispubsub.ErrGroupGone)
		require.ErrorContains(t, err, `redispubsub "p": group g of topic t: redispubsub: the group is gone from the server (NOGROUP)`)
		require.NoError(t, r.Close())
		again := open(t, d, subscription)
		ds := receive(t, again, 20)
		if ordered {
			require.Equal(t, want, ids(ds))
		} else {
			require.ElementsMatch(t, want, ids(ds))
		}
		settle(t, again, pubsub.Ack, ds...)
		require.NoError(t, again.Close())
	})
}

// With Replicas, what too few servers have is in doubt.
func TestReplicasAreAwaited(t *testing.T) {
	t.Parallel()
	srv := redistest.Start(t, "--repl-diskless-sync-delay", "0")
	client := dial(t, url(srv))
	d := newDriver(t, client, redispubsub.Config{Prefix: "p", Replicas: 1, ReplicaTimeout: 100 * time.Millisecond})
	batch := []pubsub.Message{message("1", ""), message("2", ""), {ID: "3", Topic: "u"}}
	errs := d.Publish(soon(t), batch)
	require.Len(t, errs, 3)
	for _, err := range errs {
		require.ErrorIs(t, err, pubsub.ErrInDoubt)
		require.ErrorContains(t, err, "0 of 1 replicas have it")
	}
	_, port, err := net.SplitHostPort(srv.Addr)
	require.NoError(t, err)
	replica := redistest.Start(t, "--replicaof", "127.0.0.1", port)
	patient := newDriver(t, client, redispubsub.Config{Prefix: "p", Replicas: 1, ReplicaTimeout: time.Minute})
	publish(t, patient, batch...)
	require.Contains(t, patient.Capabilities().Durability, "1 replicas")
	n, err := dial(t, url(replica)).Do(soon(t), client.B().Exists().Key("{p.u}:meta").Build()).AsInt64()
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
}
