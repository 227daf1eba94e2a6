package postgres_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/postgres/internal/pgtest"
	"github.com/backstay-go/backstay/backend/postgres/pgoutbox"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/outboxtest"
	"github.com/backstay-go/backstay/pubsub"
)

const (
	childURL  = "BACKSTAY_TEST_URL"
	childDir  = "BACKSTAY_TEST_DIR"
	childKind = "BACKSTAY_TEST_KIND" // which store: pgx or sql
	childDies = "BACKSTAY_TEST_DIES" // before or after the publisher's acceptance, or never; or it stops after it
)

// TestRelayChild is the process that other tests kill: a relay on the file broker.
func TestRelayChild(t *testing.T) {
	url, dir := os.Getenv(childURL), os.Getenv(childDir)
	if url == "" {
		return
	}
	p := openFile(t, dir)
	var publisher pubsub.Publisher = p
	switch os.Getenv(childDies) {
	case "before":
		publisher = publisherFunc(func(context.Context, ...pubsub.Message) error { die(); return nil })
	case "stops":
		p.after = sync.OnceFunc(func() {
			_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
			<-time.After(quick("").Lease) // the signal may reach this thread late
		})
		publisher = p
	case "after":
		p.after = die
		publisher = p
	}
	onError := outbox.OnError(func(err error) {
		fmt.Fprintln(os.Stderr, "child:", err) // shown where the test fails
		if errors.Is(err, outbox.ErrFenced) {
			_ = os.WriteFile(filepath.Join(dir, "fenced"), nil, 0o600)
		}
	})
	_ = outbox.NewRelay(queue(t, url, os.Getenv(childKind)), publisher, quick("child"), onError).Run(t.Context())
}

// die ends this process as kill -9 does.
func die() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

type publisherFunc func(ctx context.Context, msgs ...pubsub.Message) error

func (f publisherFunc) Publish(ctx context.Context, msgs ...pubsub.Message) error {
	return f(ctx, msgs...)
}

// queue is a store of the kind, on a pool of its own.
func queue(t testing.TB, url, kind string) outbox.Queue {
	t.Helper()
	if kind == "sql" {
		return newSQL(t, openSQL(t, url))
	}
	pool, err := pgxpool.New(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	s, err := pgoutbox.New(pool, pgoutbox.Config{})
	require.NoError(t, err)
	return s
}

// child starts a relay in a process of its own.
func child(t testing.TB, url, dir, kind, dies string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestRelayChild$")
	cmd.Env = append(os.Environ(), childURL+"="+url, childDir+"="+dir, childKind+"="+kind, childDies+"="+dies)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		kill(cmd)
		if t.Failed() {
			t.Log(said.String())
		}
	})
	return cmd
}

func kill(cmd *exec.Cmd) {
	_ = cmd.Process.Kill() // it may have ended already
	_ = cmd.Wait()
}

// deaths is how many relays die one after the other where each has to wait for the lease of the one before.
func deaths() int {
	if os.Getenv("BACKSTAY_LONG") == "1" {
		return 3
	}
	return 2
}

// kinds runs a case for both stores.
func kinds(t *testing.T, run func(t *testing.T, kind string)) {
	t.Parallel() // they mostly wait for leases to run out
	for _, kind := range []string{"pgx", "sql"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			run(t, kind)
		})
	}
}

// The process dies after the commit and before it has published anything: nothing is lost, and nothing is repeated.
func TestF01_KilledBetweenCommitAndPublish(t *testing.T) {
	kinds(t, func(t *testing.T, kind string) {
		last := perKeyIn(kind)
		s, _, url := newDatabase(t, pgoutbox.Config{})
		write(t, outbox.New(s, outbox.Config{}), 1, last)
		dir := t.TempDir()
		for range deaths() {
			cmd := child(t, url, dir, kind, "before")
			require.Error(t, cmd.Wait(), "it dies with the messages in its hands")
		}
		p := openFile(t, dir)
		require.Zero(t, p.size(t))
		for i := range 3 {
			run(t, queue(t, url, kind), p, quick(fmt.Sprint("relay", i)))
		}
		empty(t, s)
		check(t, p.messages(t), last, 0)
	})
}

// The process dies after the broker has accepted a batch and before it is deleted: at most that batch is repeated, with the same IDs. A relay
// that cannot settle within its lease, as on a machine that is short of processors, repeats one as well, and says so.
func TestF02_KilledBetweenPublishAndDelete(t *testing.T) {
	kinds(t, func(t *testing.T, kind string) {
		last := perKeyIn(kind)
		kills := deaths()
		s, _, url := newDatabase(t, pgoutbox.Config{})
		write(t, outbox.New(s, outbox.Config{}), 1, last)
		dir := t.TempDir()
		p := openFile(t, dir)
		for i := range kills {
			before := p.size(t)
			require.Error(t, child(t, url, dir, kind, "after").Wait())
			require.Greater(t, p.size(t), before, "death %d", i)
		}
		var unsettled atomic.Int64
		onError := outbox.OnError(func(err error) {
			t.Log(err)
			if strings.Contains(err.Error(), ": settle: ") {
				unsettled.Add(1)
			}
		})
		var stop [3]func()
		for i := range stop {
			_, stop[i] = run(t, queue(t, url, kind), p, quick(fmt.Sprint("relay", i)), onError)
		}
		empty(t, s)
		for i := range stop {
			stop[i]()
		}
		msgs := p.messages(t)
		t.Logf("%d deaths, %d times not settled, %d repeated", kills, unsettled.Load(), len(msgs)-keys*last)
		check(t, msgs, last, (kills+int(unsettled.Load()))*quick("").Batch)
		require.Greater(t, len(msgs), keys*last, "the deaths fell where they should")
	})
}

// A relay is stopped past its lease with a batch in its hands, and goes on when another has taken over: it settles nothing.
func TestF05_PausedRelayIsFenced(t *testing.T) {
	kinds(t, func(t *testing.T, kind string) {
		last := perKeyIn(kind)
		s, _, url := newDatabase(t, pgoutbox.Config{})
		ob := outbox.New(s, outbox.Config{})
		dir := t.TempDir()
		p := openFile(t, dir)
		write(t, ob, 1, last)
		cmd := child(t, url, dir, kind, "stops")
		pgtest.Eventually(t, "the relay stops", func() bool { return stopped(t, cmd) })
		held := p.size(t)
		require.Positive(t, held, "it has published a batch")
		run(t, queue(t, url, kind), p, quick("successor"))
		empty(t, s)
		require.NoError(t, cmd.Process.Signal(syscall.SIGCONT))
		write(t, ob, last+1, last+5)
		pgtest.Eventually(t, "the relay that came back is fenced", func() bool {
			_, err := os.Stat(filepath.Join(dir, "fenced"))
			return err == nil
		})
		empty(t, s)
		kill(cmd)
		check(t, p.messages(t), last+5, quick("").Batch)
	})
}

// stopped reports whether SIGSTOP has taken hold of the process.
func stopped(t testing.TB, cmd *exec.Cmd) bool {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", cmd.Process.Pid))
	require.NoError(t, err)
	_, rest, _ := strings.Cut(string(text), ") ")
	return strings.HasPrefix(rest, "T")
}

// A relay falls silent within a transaction that has locked the leases, with its connection open: the others wait for seconds, not
// for its return.
func TestSilentTransactionDoesNotHoldUpTheOthers(t *testing.T) {
	kinds(t, func(t *testing.T, kind string) {
		s, _, url := newDatabase(t, pgoutbox.Config{})
		proxy := pgtest.NewProxy(t, url)
		silent := proxy.Once("outbox_relays", pgtest.Freeze) // sent when the leases are locked
		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan error, 1)
		q := queue(t, proxy.URL(), kind)
		go func() { _, err := q.Lease(ctx, "silent", time.Minute); gone <- err }()
		within(t, silent)
		var p outboxtest.Publisher
		run(t, s, &p, quick("other"))
		write(t, outbox.New(s, outbox.Config{}), 1, 1)
		empty(t, s)
		cancel()
		proxy.Cut()
		require.Error(t, <-gone)
	})
}

// Three relays on 100 keys die at random while messages are stored, and are replaced.
func TestF06_ThreeRelaysUnderRandomKills(t *testing.T) {
	kinds(t, func(t *testing.T, kind string) {
		last := perKeyIn(kind)
		s, _, url := newDatabase(t, pgoutbox.Config{})
		ob := outbox.New(s, outbox.Config{})
		dir := t.TempDir()
		p := openFile(t, dir)
		relays := make([]*exec.Cmd, 3)
		for i := range relays {
			relays[i] = child(t, url, dir, kind, "never")
		}
		kills := 0
		for n := 1; n <= last; n++ {
			before := p.size(t)
			write(t, ob, n, n)
			if n%4 != 0 {
				continue
			}
			pgtest.Eventually(t, "relays publish", func() bool { return p.size(t) > before+rand.IntN(5000) })
			i := rand.IntN(len(relays))
			kill(relays[i])
			relays[i] = child(t, url, dir, kind, "never")
			kills++
		}
		began := time.Now()
		empty(t, s)
		for _, cmd := range relays {
			kill(cmd)
		}
		msgs := p.messages(t)
		check(t, msgs, last, kills*quick("").Batch)
		t.Logf("%d kills, %d repeated, drained %v after the last message", kills, len(msgs)-keys*last, time.Since(began))
	})
}
