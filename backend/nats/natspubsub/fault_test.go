package natspubsub_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/nats/natsembed"
	"github.com/backstay-go/backstay/backend/nats/natspubsub"
	"github.com/backstay-go/backstay/pubsub"
)

// bothWays runs test for an unordered subscription and an ordered one.
func bothWays(t *testing.T, test func(t *testing.T, ordered bool)) {
	t.Helper()
	atOnce(t, []bool{false, true}, func(ordered bool) string { return fmt.Sprint("ordered=", ordered) }, test)
}

func TestGuaranteeRestartLosesNothing(t *testing.T) {
	bothWays(t, func(t *testing.T, ordered bool) {
		cfg := natsembed.Config{Dir: t.TempDir(), Listen: fmt.Sprint("127.0.0.1:", freePort(t))}
		srv, err := natsembed.Start(cfg)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, srv.Close()) }) // after the receiver, which has acknowledgements to confirm
		d := newDriver(t, dial(t, srv.URL()), natspubsub.Config{Prefix: "p", PublishTimeout: 2 * time.Second})
		tr := startTraffic(t, d, d, ordered)
		tr.strike(t, 2, 200, func() {
			require.NoError(t, srv.Close())
			srv, err = natsembed.Start(cfg)
			require.NoError(t, err)
		})
		tr.finish(t)
	})
}

// freePort is a port that nobody has, below those that the system gives to connections: the port of a server that is
// restarted is not taken by one meanwhile, least of all by that of a client which tries to reach it.
func freePort(t *testing.T) int {
	t.Helper()
	for {
		l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", 20_000+rand.IntN(10_000)))
		if err != nil {
			continue
		}
		require.NoError(t, l.Close())
		return l.Addr().(*net.TCPAddr).Port
	}
}

func TestGuaranteeCutConnectionLosesNothing(t *testing.T) {
	t.Parallel()
	srv := embedded(t, natsembed.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	conn := dial(t, srv.URL())
	d := newDriver(t, conn, natspubsub.Config{Prefix: "p", PublishTimeout: 2 * time.Second})
	tr := startTraffic(t, d, d, false)
	cuts := uint64(0)
	tr.strike(t, 5, 100, func() {
		cuts++
		require.NoError(t, conn.ForceReconnect())
	})
	tr.finish(t)
	require.GreaterOrEqual(t, conn.Stats().Reconnects, cuts)
}

// childDir tells the test binary to be a process that dies.
const childDir = "BACKSTAY_NATS_CHILD_DIR"

// publishForEver runs a server of its own and prints the ID of each message that is acknowledged.
func publishForEver(dir string) {
	err := func() error {
		srv, err := natsembed.Start(natsembed.Config{Dir: dir})
		if err != nil {
			return err
		}
		conn, err := insist(func() (*nats.Conn, error) { return srv.Connect(nats.Timeout(patience)) })
		if err != nil {
			return err
		}
		d, err := natspubsub.New(context.Background(), conn, natspubsub.Config{})
		if err != nil {
			return err
		}
		for i := 0; ; i++ {
			m := message(fmt.Sprint(i), "")
			if errs := d.Publish(context.Background(), []pubsub.Message{m}); errs != nil {
				return errors.Join(errs...)
			}
			fmt.Println(m.ID)
		}
	}()
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func TestGuaranteeKilledServerLosesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var acked []string
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childDir+"="+dir)
	child.Stderr = os.Stderr
	dieWithTest(child)
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	t.Cleanup(func() { _ = child.Process.Kill() })
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if acked = append(acked, lines.Text()); len(acked) == 500 {
			require.NoError(t, child.Process.Kill()) // SIGKILL, in the middle of a message
		}
	}
	require.Error(t, child.Wait())
	require.GreaterOrEqual(t, len(acked), 500)

	conn, err := embedded(t, natsembed.Config{Dir: dir}).Connect(nats.Timeout(patience))
	require.NoError(t, err)
	defer conn.Close()
	d := newDriver(t, conn, natspubsub.Config{Prefix: "backstay"})
	ctx, cancel := context.WithCancel(t.Context())
	got, ended := collect(ctx, open(t, d, nil))
	got.await(t, acked)
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
}

// Publish says in doubt when the answer is lost, and the same ID is stored once however often it is sent.
func TestGuaranteeInDoubtAndDuplicates(t *testing.T) {
	t.Parallel()
	srv := embedded(t, natsembed.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	conn := dial(t, srv.URL())
	d := newDriver(t, conn, natspubsub.Config{Prefix: "p"})
	publish(t, d, message("1", ""))
	publish(t, d, message("1", ""), message("2", ""))
	require.Equal(t, uint64(1), d.Stats().Duplicates)
	require.Equal(t, uint64(2), srv.Stats().Messages)

	require.NoError(t, srv.Close())
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	errs := d.Publish(ctx, []pubsub.Message{message("3", "")})
	require.Len(t, errs, 1)
	require.ErrorIs(t, errs[0], pubsub.ErrInDoubt)
	require.Equal(t, uint64(1), d.Stats().InDoubt)

	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	errs = d.Publish(ctx, []pubsub.Message{message("4", "")})
	require.ErrorIs(t, errs[0], context.Canceled)
	require.NotErrorIs(t, errs[0], pubsub.ErrInDoubt, "it was not sent")
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

// Publisher and consumer have a connection each, with every fault; nothing that was acknowledged is lost, and no Publish
// takes longer than it may.
func TestGuaranteeFaultyConnectionLosesNothing(t *testing.T) {
	const timeout = 2 * time.Second
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
		srv := embedded(t, natsembed.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
		p := newProxy(t, srv.URL()[len("nats://"):])
		cfg := natspubsub.Config{Prefix: "p", PublishTimeout: timeout}
		tr := startTraffic(t, newDriver(t, dial(t, p.url()), cfg), newDriver(t, dial(t, p.url()), cfg), c.ordered)
		tr.strike(t, 2, 100, func() { c.do(p) })
		tr.finish(t)
		require.Less(t, time.Duration(tr.slowest.Load()), timeout+10*time.Second)
	})
}

// A connection that takes no bytes blocks whoever writes to it, and holds the client's lock meanwhile. Publish returns
// all the same, for messages that were sent and for those that were not.
func TestPublishReturnsWhenTheConnectionHangs(t *testing.T) {
	t.Parallel()
	const timeout = 2 * time.Second
	srv := embedded(t, natsembed.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	p := newProxy(t, srv.URL()[len("nats://"):])
	d := newDriver(t, dial(t, p.url()), natspubsub.Config{Prefix: "p", PublishTimeout: timeout})
	open(t, d, nil) // the topic stands
	p.stall()
	defer func() { p.resume(); p.cut(true) }() // or Close hangs as well
	batch := make([]pubsub.Message, 200)
	for i := range batch {
		batch[i] = message(fmt.Sprint(i), "")
		batch[i].Payload = make([]byte, 512<<10) // more than the buffers of a connection on loopback hold
	}
	begin := time.Now()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			errs := d.Publish(context.Background(), batch)
			if len(errs) != len(batch) {
				t.Errorf("%d errors, want %d", len(errs), len(batch))
				return
			}
			if last := errs[len(errs)-1]; errors.Is(last, pubsub.ErrInDoubt) || !errors.Is(last, context.DeadlineExceeded) {
				t.Errorf("a message that was not sent: %v", last)
			}
			d.Capabilities() // does not block
		})
	}
	wg.Wait()
	require.Positive(t, d.Stats().InDoubt)
	errs := d.Publish(context.Background(), []pubsub.Message{{ID: "x", Topic: "new"}}) // which asks for a stream first
	require.ErrorIs(t, errs[0], context.DeadlineExceeded)
	require.Less(t, time.Since(begin), 2*timeout+10*time.Second)
}
