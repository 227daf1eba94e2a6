package natspubsub_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/nats/natsembed"
	"github.com/backstay-go/backstay/backend/nats/natspubsub"
	"github.com/backstay-go/backstay/pubsub"
)

// memberURL tells the test binary to be a member of a group on that server; memberLog is the file, shared by all
// members, to which it writes a line when a handler begins and one when it ends, and one when it has stood still.
const (
	memberURL   = "BACKSTAY_NATS_MEMBER_URL"
	memberLog   = "BACKSTAY_NATS_MEMBER_LOG"
	memberName  = "BACKSTAY_NATS_MEMBER_NAME"
	memberLease = "BACKSTAY_NATS_MEMBER_LEASE"
)

func beMember(url string) {
	err := func() error {
		ctx := context.Background()
		log, err := os.OpenFile(os.Getenv(memberLog), os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return err
		}
		lease, err := time.ParseDuration(os.Getenv(memberLease))
		if err != nil {
			return err
		}
		name := os.Getenv(memberName)
		note := func(what, key, id string) {
			if _, err := fmt.Fprintf(log, "%s %s %s %s\n", what, name, key, id); err != nil { // one write
				fmt.Fprintln(os.Stderr, err)
			}
		}
		defer feelPulse(func(d time.Duration) {
			if d > lease/4 {
				note("S", "-", d.String())
			}
		})()
		d, err := insist(func() (*natspubsub.Driver, error) {
			return natspubsub.Open(ctx, url, natspubsub.Config{}, nats.Timeout(patience))
		})
		if err != nil {
			return err
		}
		c, err := pubsub.New(d).Open(ctx, pubsub.Subscription{Topic: "t", Group: "g", Start: "start", Ordered: true, Lease: lease})
		if err != nil {
			return err
		}
		return c.Run(ctx, func(_ context.Context, m pubsub.Message) error {
			note("B", m.Key, m.ID)
			<-time.After(time.Millisecond) // so that there is something in flight when it is struck
			note("E", m.Key, m.ID)
			return nil
		})
	}()
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func startMember(t *testing.T, url, log, name string, lease time.Duration) (member *os.Process, end func()) {
	t.Helper()
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), memberURL+"="+url, memberLog+"="+log, memberName+"="+name, memberLease+"="+lease.String())
	child.Stderr = os.Stderr
	dieWithTest(child)
	require.NoError(t, child.Start())
	end = sync.OnceFunc(func() {
		_ = child.Process.Kill()
		_ = child.Wait()
	})
	t.Cleanup(end)
	return child.Process, end
}

// Two members share 100 keys; one of them is killed, or stopped for longer than its lease. No two messages of a key are
// in flight at once in members that are well, and each is first handled after those before it.
func TestGuaranteeOrderAcrossMembers(t *testing.T) {
	rounds := 1
	if long() {
		rounds = 50 // of each kind
	}
	atOnce(t, []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP}, syscall.Signal.String, func(t *testing.T, signal syscall.Signal) {
		for range rounds {
			steadily(t, func(t *testing.T, lease time.Duration, stood func(time.Duration)) string {
				return strikeMember(t, signal, lease, stood)
			})
		}
	})
}

// strikeMember has one of two members fall ill half way and returns what was out of order.
func strikeMember(t *testing.T, signal syscall.Signal, lease time.Duration, stood func(time.Duration)) string {
	t.Helper()
	const keys, perKey = 100, 100
	srv, err := natsembed.Start(natsembed.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	require.NoError(t, err)
	defer func() { require.NoError(t, srv.Close()) }()
	conn := dial(t, srv.URL())
	defer conn.Close()
	d := newDriver(t, conn, natspubsub.Config{Prefix: "backstay"})
	var msgs []pubsub.Message
	for i := range keys * perKey {
		msgs = append(msgs, message(strconv.Itoa(i/keys), strconv.Itoa(i%keys)))
		msgs[i].ID += "/" + msgs[i].Key
	}
	publish(t, d, msgs...)
	log := filepath.Join(t.TempDir(), "log")
	require.NoError(t, os.WriteFile(log, nil, 0o600))
	ill, endIll := startMember(t, srv.URL(), log, "ill", lease)
	defer endIll()
	_, endWell := startMember(t, srv.URL(), log, "well", lease)
	defer endWell()

	awaitLines(t, log, len(msgs)/2)
	require.NoError(t, ill.Signal(signal))
	struck := len(readLines(t, log)) // what it did before
	if signal == syscall.SIGSTOP {
		<-time.After(2 * lease)
		awaitLines(t, log, struck+1) // the other goes on
		require.NoError(t, ill.Signal(syscall.SIGCONT))
	}
	awaitHandled(t, log, len(msgs))
	return checkOrder(t, readLines(t, log), struck, stood)
}

func readLines(t *testing.T, log string) []string {
	t.Helper()
	text, err := os.ReadFile(log)
	require.NoError(t, err)
	text = text[:bytes.LastIndexByte(text, '\n')+1]
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

// awaitLines returns when there are n.
func awaitLines(t *testing.T, log string, n int) {
	t.Helper()
	awaitLog(t, log, func(lines []string) bool { return len(lines) >= n })
}

// awaitHandled returns when n messages have been handled.
func awaitHandled(t *testing.T, log string, n int) {
	t.Helper()
	handled, read := make(map[string]bool), 0
	awaitLog(t, log, func(lines []string) bool {
		for _, line := range lines[read:] {
			if f := strings.Fields(line); len(f) == 4 && f[0] == "E" {
				handled[f[3]] = true
			}
		}
		read = len(lines)
		return len(handled) == n
	})
}

// awaitLog returns when the log is as it should be, and fails when it grows no more before.
func awaitLog(t *testing.T, log string, done func(lines []string) bool) {
	t.Helper()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	grown, size := time.Now(), -1
	for lines := readLines(t, log); !done(lines); lines = readLines(t, log) {
		if len(lines) > size {
			grown, size = time.Now(), len(lines)
		}
		require.Less(t, time.Since(grown), patience, "the log has stopped at %d lines", size)
		<-ticker.C
	}
}

// checkOrder reads what happened, and tells of members that stood still though they were well. After line struck the
// ill member was ill: what it had in flight then may be handled elsewhere.
func checkOrder(t *testing.T, lines []string, struck int, stood func(time.Duration)) (wrong string) {
	t.Helper()
	first := make(map[string]int)       // by key: the next message that nobody has handled
	inFlight := make(map[string]string) // by key: member and message
	late := 8                           // workers of the ill member that had a message and had not written it down
	for i, line := range lines {
		f := strings.Fields(line)
		require.Len(t, f, 4, line)
		what, member, key := f[0], f[1], f[2]
		ill := member == "ill" && i >= struck
		if what == "S" {
			d, err := time.ParseDuration(f[3])
			require.NoError(t, err)
			if !ill {
				stood(d)
			}
			continue
		}
		seq, err := strconv.Atoi(strings.TrimSuffix(f[3], "/"+key))
		require.NoError(t, err)
		mine := member + " " + f[3]
		if what == "E" {
			if inFlight[key] == mine {
				delete(inFlight, key)
			}
			continue
		}
		other, busy := inFlight[key]
		switch {
		case busy && ill && late > 0:
			late--
			continue
		case busy && (i < struck || !strings.HasPrefix(other, "ill ")) && wrong == "":
			wrong = fmt.Sprintf("line %d: %s begins while %s is in flight", i, mine, other)
		case seq > first[key] && wrong == "":
			wrong = fmt.Sprintf("line %d: %s is handled before its predecessor", i, mine)
		}
		inFlight[key] = mine
		first[key] = max(first[key], seq+1)
	}
	return wrong
}
