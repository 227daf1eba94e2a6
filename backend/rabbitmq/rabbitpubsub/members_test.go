package rabbitpubsub_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/rabbitmq/rabbitpubsub"
	"github.com/backstay-go/backstay/pubsub"
)

// memberURL tells the test binary to be a member of a group on that server; memberLog is the file, shared by all
// members, to which it writes a line when a handler begins.
const (
	memberURL    = "BACKSTAY_RABBITMQ_MEMBER_URL"
	memberPrefix = "BACKSTAY_RABBITMQ_MEMBER_PREFIX"
	memberLog    = "BACKSTAY_RABBITMQ_MEMBER_LOG"
)

// beMember handles messages until it is killed.
func beMember(url string) {
	err := func() error {
		ctx := context.Background()
		log, err := os.OpenFile(os.Getenv(memberLog), os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return err
		}
		d, err := rabbitpubsub.Open(ctx, url, rabbitpubsub.Config{Prefix: os.Getenv(memberPrefix)})
		if err != nil {
			return err
		}
		c, err := pubsub.New(d).Open(ctx, pubsub.Subscription{Topic: "t", Group: "g", Ordered: true})
		if err != nil {
			return err
		}
		return c.Run(ctx, func(_ context.Context, m pubsub.Message) error {
			_, err := fmt.Fprintf(log, "%d %s %s\n", os.Getpid(), m.Key, m.ID) // one write
			return err
		})
	}()
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// Of three members two are killed one after the other while they handle messages. Every message is handled, and first
// after those before it of its key.
func TestGuaranteeOrderAcrossKilledMembers(t *testing.T) {
	t.Parallel()
	const names, perName = 20, 150
	d := newDriver(t, shared(t), rabbitpubsub.Config{})
	require.NoError(t, open(t, d, ordered).Close())
	log := filepath.Join(t.TempDir(), "log")
	require.NoError(t, os.WriteFile(log, nil, 0o600))
	var members []*exec.Cmd
	for range 3 {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), memberURL+"="+d.url, memberPrefix+"="+d.cfg.Prefix, memberLog+"="+log)
		child.Stderr = os.Stderr
		dieWithTest(child)
		require.NoError(t, child.Start())
		t.Cleanup(func() { _ = child.Process.Kill(); _ = child.Wait() })
		members = append(members, child)
	}
	var msgs []pubsub.Message
	for i := range names * perName {
		msgs = append(msgs, message(strconv.Itoa(i/names), strconv.Itoa(i%names)))
	}
	for part := range 3 {
		third := len(msgs) / 3
		publish(t, d, msgs[part*third:(part+1)*third]...)
		if part < 2 {
			busy := awaitLines(t, log, part*third+third/3)
			for _, m := range members { // the one that has the lanes
				if strings.HasPrefix(busy, strconv.Itoa(m.Process.Pid)+" ") {
					require.NoError(t, m.Process.Kill())
				}
			}
		}
	}
	next := make(map[string]int)
	pids := make(map[string]bool)
	awaitLog(t, log, func(lines []string) bool {
		clear(next)
		for _, line := range lines {
			var pid, key string
			var n int
			_, err := fmt.Sscan(line, &pid, &key, &n)
			require.NoError(t, err, line)
			require.LessOrEqual(t, n, next[key], "key %s: before its predecessor", key)
			next[key] = max(next[key], n+1)
			pids[pid] = true
		}
		for _, n := range next {
			if n < perName {
				return false
			}
		}
		return len(next) == names
	})
	require.Greater(t, len(pids), 1, "no other member took over")
}

// awaitLines returns the last line when there are n.
func awaitLines(t *testing.T, log string, n int) (last string) {
	t.Helper()
	awaitLog(t, log, func(lines []string) bool {
		if len(lines) < n {
			return false
		}
		last = lines[len(lines)-1]
		return true
	})
	return last
}

// awaitLog returns when the log is as it should be, and fails when it grows no more before.
func awaitLog(t *testing.T, log string, done func(lines []string) bool) {
	t.Helper()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for grown, size := time.Now(), -1; ; <-ticker.C {
		text, err := os.ReadFile(log)
		require.NoError(t, err)
		text = text[:bytes.LastIndexByte(text, '\n')+1]
		lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
		if len(text) > 0 && done(lines) {
			return
		}
		if len(text) > size {
			grown, size = time.Now(), len(text)
		}
		require.Less(t, time.Since(grown), patience, "the log has stopped at %d lines", len(lines))
	}
}
