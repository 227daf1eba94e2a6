package natspubsub_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/nats/natsembed"
	"github.com/backstay-go/backstay/backend/nats/natspubsub"
	"github.com/backstay-go/backstay/pubsub"
)

// collector counts what a receiver gets and acknowledges.
type collector struct {
	mu   sync.Mutex
	seen map[string]bool
	more chan struct{} // capacity 1
}

func collect(ctx context.Context, r pubsub.Receiver) (c *collector, ended <-chan error) {
	c = &collector{seen: make(map[string]bool), more: make(chan struct{}, 1)}
	end := make(chan error, 1)
	go func() { end <- c.run(ctx, r) }()
	return c, end
}

func (c *collector) run(ctx context.Context, r pubsub.Receiver) error {
	for {
		ds, err := r.Receive(ctx, 100)
		if err != nil {
			return err
		}
		verdicts := make([]pubsub.Verdict, len(ds))
		c.mu.Lock()
		for i, d := range ds {
			c.seen[d.ID] = true
			verdicts[i] = pubsub.Verdict{Token: d.Token, Kind: pubsub.Ack}
		}
		c.mu.Unlock()
		_ = r.Settle(ctx, verdicts) // after a failure they come again
		select {
		case c.more <- struct{}{}:
		default:
		}
	}
}

// await returns when all ids have come.
func (c *collector) await(t *testing.T, ids []string) {
	t.Helper()
	deadline := time.After(60 * time.Second)
	for {
		c.mu.Lock()
		missing := 0
		for _, id := range ids {
			if !c.seen[id] {
				missing++
			}
		}
		c.mu.Unlock()
		if missing == 0 {
			return
		}
		select {
		case <-c.more:
		case <-deadline:
			t.Fatalf("%d of %d acknowledged messages are lost", missing, len(ids))
		}
	}
}

// load publishes until stop is closed and returns the IDs that were acknowledged.
func load(d *natspubsub.Driver, stop <-chan struct{}, progress chan<- int) (acked []string) {
	for i := 0; ; i++ {
		select {
		case <-stop:
			return acked
		default:
		}
		batch := make([]pubsub.Message, 10)
		for j := range batch {
			batch[j] = message(fmt.Sprintf("%d-%d", i, j), fmt.Sprint("k", j))
		}
		errs := d.Publish(context.Background(), batch)
		for j := range batch {
			if errs == nil || errs[j] == nil {
				acked = append(acked, batch[j].ID)
			}
		}
		select {
		case progress <- len(acked):
		default:
		}
	}
}

func awaitMore(progress <-chan int, n int) {
	first := <-progress
	for p := range progress {
		if p >= first+n {
			return
		}
	}
}

func TestGuaranteeRestartLosesNothing(t *testing.T) {
	for _, ordered := range []bool{false, true} {
		t.Run(fmt.Sprint("ordered=", ordered), func(t *testing.T) {
			cfg := natsembed.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"}
			srv, err := natsembed.Start(cfg)
			require.NoError(t, err)
			url := srv.URL()
			cfg.Listen = url[len("nats://"):]
			d := newDriver(t, dial(t, url), natspubsub.Config{Prefix: "p", PublishTimeout: 2 * time.Second})
			ctx, cancel := context.WithCancel(t.Context())
			r := open(t, d, func(s *pubsub.Subscription) { s.Ordered, s.Lease = ordered, 2*time.Second })
			got, ended := collect(ctx, r)

			stop, progress, acked := make(chan struct{}), make(chan int), make(chan []string, 1)
			go func() { acked <- load(d, stop, progress) }()
			for range 2 {
				awaitMore(progress, 200)
				require.NoError(t, srv.Close())
				srv, err = natsembed.Start(cfg)
				require.NoError(t, err)
			}
			awaitMore(progress, 200)
			close(stop)
			ids := <-acked
			got.await(t, ids)
			cancel()
			require.ErrorIs(t, <-ended, context.Canceled)
			require.NoError(t, r.Close())
			require.NoError(t, srv.Close())
		})
	}
}

func TestGuaranteeCutConnectionLosesNothing(t *testing.T) {
	srv := embedded(t, natsembed.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	conn := dial(t, srv.URL())
	d := newDriver(t, conn, natspubsub.Config{Prefix: "p", PublishTimeout: 2 * time.Second})
	ctx, cancel := context.WithCancel(t.Context())
	got, ended := collect(ctx, open(t, d, func(s *pubsub.Subscription) { s.Lease = 2 * time.Second }))
	stop, progress, acked := make(chan struct{}), make(chan int), make(chan []string, 1)
	go func() { acked <- load(d, stop, progress) }()
	for range 5 {
		awaitMore(progress, 100)
		require.NoError(t, conn.ForceReconnect())
	}
	awaitMore(progress, 100)
	close(stop)
	got.await(t, <-acked)
	require.Equal(t, uint64(5), conn.Stats().Reconnects)
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
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
		conn, err := srv.Connect()
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
	dir := t.TempDir()
	var acked []string
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childDir+"="+dir)
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, child.Start())
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if acked = append(acked, lines.Text()); len(acked) == 500 {
			require.NoError(t, child.Process.Kill()) // SIGKILL, in the middle of a message
		}
	}
	require.Error(t, child.Wait())
	require.GreaterOrEqual(t, len(acked), 500)

	conn, err := embedded(t, natsembed.Config{Dir: dir}).Connect()
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
	srv := embedded(t, natsembed.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	conn := dial(t, srv.URL())
	d := newDriver(t, conn, natspubsub.Config{Prefix: "p", PublishTimeout: time.Second})
	publish(t, d, message("1", ""))
	publish(t, d, message("1", ""), message("2", ""))
	require.Equal(t, uint64(1), d.Stats().Duplicates)
	require.Equal(t, uint64(2), srv.Stats().Messages)

	require.NoError(t, srv.Close())
	errs := d.Publish(t.Context(), []pubsub.Message{message("3", "")})
	require.Len(t, errs, 1)
	require.ErrorIs(t, errs[0], pubsub.ErrInDoubt)
	require.Equal(t, uint64(1), d.Stats().InDoubt)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	errs = d.Publish(ctx, []pubsub.Message{message("4", "")})
	require.ErrorIs(t, errs[0], context.Canceled)
	require.NotErrorIs(t, errs[0], pubsub.ErrInDoubt, "it was not sent")
}
