package mysqloutbox_test

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/pubsub"
)

// keys is the number of aggregates in the fault cases.
const keys = 100

// fast makes a dead relay be missed soon, but not one that a busy machine holds up.
var fast = outbox.RelayConfig{Batch: 20, Lease: 3 * time.Second, PollMax: 20 * time.Millisecond, BackoffInitial: 5 * time.Millisecond}

func long() bool { return os.Getenv("BACKSTAY_LONG") == "1" }

// either is the figure of the short or of the long form.
func either(short, full int) int {
	if long() {
		return full
	}
	return short
}

// putRound stores the message numbered n of every key in one transaction.
func putRound(t testing.TB, s outbox.Store[*sql.Tx], n int) {
	t.Helper()
	require.NoError(t, storeRound(t.Context(), s, n))
}

func storeRound(ctx context.Context, s outbox.Store[*sql.Tx], n int) error {
	msgs := make([]pubsub.Message, keys)
	for k := range msgs {
		msgs[k] = pubsub.Message{ID: fmt.Sprintf("%d/%d", k, n), Topic: "t", Key: fmt.Sprint(k), Payload: strconv.AppendInt(nil, int64(n), 10)}
	}
	ob := outbox.New(s, outbox.Config{})
	return ob.InTx(ctx, func(ctx context.Context, tx *sql.Tx) error { return ob.Publish(ctx, tx, msgs...) })
}

// verify checks that rounds 1 to n of every key were published, first occurrences in order, with at most so many repetitions.
func verify(t testing.TB, msgs []pubsub.Message, n, repetitions int) {
	t.Helper()
	last := map[string]int{}
	for _, m := range msgs {
		number, err := strconv.Atoi(string(m.Payload))
		require.NoError(t, err)
		require.Equal(t, m.Key+"/"+string(m.Payload), m.ID, "the ID is the same each time")
		require.LessOrEqual(t, number, last[m.Key]+1, "key %s", m.Key)
		last[m.Key] = max(last[m.Key], number)
	}
	require.Len(t, last, keys)
	for key, number := range last {
		require.Equal(t, n, number, "the last message of key %s", key)
	}
	require.LessOrEqual(t, len(msgs), keys*n+repetitions, "repetitions")
	t.Logf("%d messages, %d repeated", keys*n, len(msgs)-keys*n)
}

// broker is a pair of files that outlive every process of a test: what was published, and a byte for each lease that was lost.
type broker struct{ published, fenced *os.File }

func openBroker(t testing.TB, dir string) broker {
	t.Helper()
	file := func(name string) *os.File {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_APPEND|os.O_CREATE|os.O_RDWR, 0o600)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, f.Close()) })
		return f
	}
	return broker{file("published"), file("fenced")}
}

// Publish is slow and takes a call in two parts, so that a kill often falls between them, or between the first and what the relay
// does before or after.
func (b broker) Publish(_ context.Context, msgs ...pubsub.Message) error {
	half := len(msgs) / 2
	err := b.write(msgs[:half])
	<-time.After(2 * time.Millisecond)
	return errors.Join(err, b.write(msgs[half:]))
}

func (b broker) write(msgs []pubsub.Message) error {
	var text bytes.Buffer
	for _, m := range msgs {
		line, err := json.Marshal(m)
		if err != nil {
			return err
		}
		fmt.Fprintf(&text, "\n%s\n", line)
	}
	_, err := b.published.Write(text.Bytes())
	return err
}

// watch notes the loss of a lease.
func (b broker) watch() outbox.RelayOption {
	return outbox.OnError(func(err error) {
		if errors.Is(err, outbox.ErrFenced) {
			_, _ = b.fenced.WriteString("x")
		}
	})
}

func (b broker) messages(t testing.TB) []pubsub.Message {
	t.Helper()
	text, err := os.ReadFile(b.published.Name())
	require.NoError(t, err)
	var msgs []pubsub.Message
	for line := range strings.Lines(string(text)) {
		var m pubsub.Message
		if json.Unmarshal([]byte(line), &m) == nil { // a killed process may leave half a line
			msgs = append(msgs, m)
		}
	}
	return msgs
}

func size(t testing.TB, f *os.File) int64 {
	t.Helper()
	info, err := f.Stat()
	require.NoError(t, err)
	return info.Size()
}

// committed is how many rounds the process commits that dies before it has published any.
func committed() int { return either(1, 100) }

// childEnv names the variables that make the test binary a process to be killed.
const childEnv, childURL, childDir = "BACKSTAY_MYSQL_CHILD", "BACKSTAY_MYSQL_CHILD_URL", "BACKSTAY_MYSQL_CHILD_DIR"

// TestChild is the process that the fault cases kill, stop and continue.
func TestChild(t *testing.T) {
	mode := os.Getenv(childEnv)
	if mode == "" {
		return
	}
	b := openBroker(t, os.Getenv(childDir))
	s, _ := migrated(t, os.Getenv(childURL))
	var p pubsub.Publisher = b
	switch mode {
	case "commit and die": // publishes nothing
		for n := range committed() {
			putRound(t, s, n+1)
		}
		fmt.Println("committed")
		p = publisherFunc(func(context.Context, ...pubsub.Message) error { select {} })
	case "publish and die": // never hears the answer
		p = publisherFunc(func(ctx context.Context, msgs ...pubsub.Message) error {
			if err := b.Publish(ctx, msgs...); err != nil {
				return err
			}
			fmt.Println("published")
			select {}
		})
	case "publish and wait": // for a line of input, in the middle of its first call
		first := true
		p = publisherFunc(func(ctx context.Context, msgs ...pubsub.Message) error {
			if first {
				first = false
				half := len(msgs) / 2
				if err := b.write(msgs[:half]); err != nil {
					return err
				}
				msgs = msgs[half:]
				fmt.Println("waiting")
				if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
					return err
				}
			}
			return b.Publish(ctx, msgs...)
		})
	}
	cfg := fast
	if mode == "brief lease" {
		cfg.Lease = briefLease
	}
	require.NoError(t, outbox.NewRelay(s, p, cfg, b.watch()).Run(context.Background()))
}

type publisherFunc func(ctx context.Context, msgs ...pubsub.Message) error

func (f publisherFunc) Publish(ctx context.Context, msgs ...pubsub.Message) error {
	return f(ctx, msgs...)
}

// child is a process of this binary.
type child struct {
	*osexec.Cmd
	out *bufio.Reader
	in  interface{ Write([]byte) (int, error) }
}

// spawn starts a child, which is killed at the latest when the test ends.
func spawn(t testing.TB, mode, url, dir string) *child {
	t.Helper()
	cmd := osexec.Command(os.Args[0], "-test.run=^TestChild$")
	cmd.Env = append(os.Environ(), childEnv+"="+mode, childURL+"="+url, childDir+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	c := &child{cmd, bufio.NewReader(out), in}
	t.Cleanup(func() { c.kill(t) })
	return c
}

// says waits for a line of output.
func (c *child) says(t testing.TB, want string) {
	t.Helper()
	got, err := c.out.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, want, strings.TrimSpace(got))
}

// kill is SIGKILL.
func (c *child) kill(t testing.TB) {
	t.Helper()
	if c.ProcessState != nil {
		return
	}
	if err := c.Process.Kill(); err != nil {
		require.ErrorIs(t, err, os.ErrProcessDone)
	}
	_ = c.Wait() // it says that it was killed
}
