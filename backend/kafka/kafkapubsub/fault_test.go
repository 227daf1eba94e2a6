package kafkapubsub_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/backstay-go/backstay/backend/kafka/kafkapubsub"
	"github.com/backstay-go/backstay/pubsub"
)

// Names of the variables by which this binary is told to be a broker or a member.
const (
	brokerSpec = "BACKSTAY_KAFKA_TEST_BROKER" // port:directory
	memberSpec = "BACKSTAY_KAFKA_TEST_MEMBER" // a childMember
)

// beBroker is a broker with its data in a directory, until it is killed.
func beBroker(spec string) {
	port, dir, _ := strings.Cut(spec, ":")
	n, err := strconv.Atoi(port)
	if err == nil {
		_, err = kfake.NewCluster(kfake.Ports(n), kfake.DataDir(dir), kfake.GroupMinSessionTimeout(100*time.Millisecond))
	}
	if err != nil {
		fmt.Println("broker:", err)
		os.Exit(1)
	}
	fmt.Println("ready")
	select {}
}

// childMember is a member in a process of its own.
type childMember struct {
	Seeds  string              `json:"seeds"`
	Config kafkapubsub.Config  `json:"config"`
	Sub    pubsub.Subscription `json:"sub"`
	Poison string              `json:"poison"` // the message that kills the process
	Slow   bool                `json:"slow"`   // a message takes a millisecond
}

// beMember handles messages until it is killed, and prints the ID of each.
func beMember(spec string) {
	var m childMember
	err := json.Unmarshal([]byte(spec), &m)
	var d *kafkapubsub.Driver
	if err == nil {
		d, err = kafkapubsub.Open(context.Background(), m.Seeds, m.Config)
	}
	var c *pubsub.Consumer
	if err == nil {
		c, err = pubsub.New(d).Open(context.Background(), m.Sub)
	}
	if err == nil {
		err = c.Run(context.Background(), func(_ context.Context, msg pubsub.Message) error {
			if msg.ID == m.Poison {
				os.Exit(3)
			}
			if m.Slow {
				<-time.After(time.Millisecond)
			}
			fmt.Println(msg.ID)
			return nil
		})
	}
	fmt.Println("member:", err)
	os.Exit(1)
}

// child runs this binary with a variable set. Its lines come on the channel, which is closed when it ends.
func child(t *testing.T, variable, value string) (proc *os.Process, lines <-chan string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), variable+"="+value)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	ch := make(chan string, 100_000)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for s := bufio.NewScanner(out); s.Scan(); {
			ch <- s.Text()
		}
		close(ch)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	return cmd.Process, ch
}

func line(t *testing.T, lines <-chan string) (text string, ok bool) {
	t.Helper()
	select {
	case text, ok = <-lines:
		return text, ok
	case <-time.After(patience):
		t.Fatal("the child says nothing")
		return "", false
	}
}

func startBroker(t *testing.T, port int, dir string) *os.Process {
	t.Helper()
	proc, lines := child(t, brokerSpec, fmt.Sprintf("%d:%s", port, dir))
	text, _ := line(t, lines)
	require.Equal(t, "ready", text)
	return proc
}

// kill ends a process by SIGKILL and waits until its port is free.
func kill(t *testing.T, proc *os.Process, port int) {
	t.Helper()
	require.NoError(t, proc.Kill())
	require.Eventually(t, func() bool {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return false
		}
		_ = l.Close()
		return true
	}, patience, 10*time.Millisecond)
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

// TestGuaranteeKilledServerLosesNothing kills the broker again and again while messages pass.
func TestGuaranteeKilledServerLosesNothing(t *testing.T) {
	t.Parallel()
	port, dir := freePort(t), t.TempDir()
	proc := startBroker(t, port, dir)
	seeds := fmt.Sprintf("127.0.0.1:%d", port)
	cfg := kafkapubsub.Config{
		Partitions: 4, CommitInterval: 20 * time.Millisecond, SessionTimeout: 10 * time.Second, PublishTimeout: 5 * time.Second,
	}
	openDriver := func() *kafkapubsub.Driver {
		d, err := kafkapubsub.Open(soon(t), "kafka://"+seeds, cfg, kgo.MetadataMinAge(50*time.Millisecond))
		require.NoError(t, err)
		t.Cleanup(func() { _ = d.Close() })
		return d
	}
	tr := startTraffic(t, openDriver(), openDriver(), false)
	kills := 3
	if long() {
		kills = 30
	}
	for range kills {
		tr.more(t, 200)
		kill(t, proc, port)
		proc = startBroker(t, port, dir)
	}
	tr.more(t, 200)
	tr.finish(t)
}

// childSub is what a member in a process of its own subscribes to.
func childSub() pubsub.Subscription {
	return pubsub.Subscription{Topic: "t", Group: "g", Start: "start", Lease: faultLease, MaxAttempts: 1, Concurrency: 1}
}

func startMember(t *testing.T, c *kfake.Cluster, m childMember) (*os.Process, <-chan string) {
	t.Helper()
	m.Seeds, m.Sub = strings.Join(c.ListenAddrs(), ","), childSub()
	spec, err := json.Marshal(m)
	require.NoError(t, err)
	return child(t, memberSpec, string(spec))
}

// TestGuaranteeKilledMemberLosesNothing kills a member, whose messages go to another.
func TestGuaranteeKilledMemberLosesNothing(t *testing.T) {
	t.Parallel()
	c := cluster(t)
	cfg := kafkapubsub.Config{Prefix: "killed.", Partitions: 4, SessionTimeout: 2 * time.Second, CommitInterval: 50 * time.Millisecond}
	d := newDriver(t, c, cfg)
	var msgs []pubsub.Message
	for i := range 20_000 {
		msgs = append(msgs, message(strconv.Itoa(i), ""))
	}
	require.Nil(t, d.Publish(soon(t), msgs))
	seen := make(map[string]bool)
	for kills := range 3 {
		proc, lines := startMember(t, c, childMember{Config: cfg})
		for len(seen) < 3000*(kills+1) {
			text, ok := line(t, lines)
			require.True(t, ok)
			seen[text] = true
		}
		require.NoError(t, proc.Kill())
		for text := range lines {
			seen[text] = true
		}
	}
	got := make(chan string, 50_000)
	last := join(t, d, childSub(), func(_ context.Context, m pubsub.Message) error { got <- m.ID; return nil })
	repeated := 0
	for len(seen) < len(msgs) {
		select {
		case id := <-got:
			if seen[id] {
				repeated++
			}
			seen[id] = true
		case <-time.After(patience):
			t.Fatalf("%d of %d messages were handled", len(seen), len(msgs))
		}
	}
	last.leave(t)
	t.Logf("the last member repeated %d messages", repeated)
}

// TestGuaranteeStoppedMemberIsStale stops a member for longer than its lease and session: others take over, and it does not
// handle what it held when it goes on.
func TestGuaranteeStoppedMemberIsStale(t *testing.T) {
	t.Parallel()
	c := cluster(t)
	cfg := kafkapubsub.Config{Prefix: "stopped.", Partitions: 4, SessionTimeout: 2 * time.Second, CommitInterval: 50 * time.Millisecond}
	d := newDriver(t, c, cfg)
	var msgs []pubsub.Message
	for i := range 8000 {
		msgs = append(msgs, message(strconv.Itoa(i), ""))
	}
	require.Nil(t, d.Publish(soon(t), msgs))
	proc, lines := startMember(t, c, childMember{Config: cfg, Slow: true})
	seen := make(map[string]bool)
	for range 200 {
		text, ok := line(t, lines)
		require.True(t, ok)
		seen[text] = true
	}
	require.NoError(t, proc.Signal(syscall.SIGSTOP))
	got := make(chan string, 50_000)
	last := join(t, d, childSub(), func(_ context.Context, m pubsub.Message) error { got <- m.ID; return nil })
	others := make(map[string]bool)
	for {
		for quiet := false; !quiet; { // what it printed before it was stopped
			select {
			case text := <-lines:
				seen[text] = true
			default:
				quiet = true
			}
		}
		if len(seen)+len(others) >= len(msgs) {
			missing := 0
			for i := range msgs {
				if !seen[msgs[i].ID] && !others[msgs[i].ID] {
					missing++
				}
			}
			if missing == 0 {
				break
			}
		}
		select {
		case id := <-got:
			others[id] = true
		case <-time.After(patience):
			t.Fatalf("%d and %d of %d messages were handled", len(seen), len(others), len(msgs))
		}
	}
	lease := time.NewTimer(faultLease)
	defer lease.Stop()
	<-lease.C
	require.NoError(t, proc.Signal(syscall.SIGCONT))
	watch := time.NewTimer(2 * time.Second) // enough for what it holds, if it went on with it
	defer watch.Stop()
	stale := 0
	for done := false; !done; {
		select {
		case text := <-lines:
			if others[text] {
				stale++
			}
		case <-watch.C:
			done = true
		}
	}
	last.leave(t)
	require.LessOrEqual(t, stale, 1, "only the handler that was running may have finished what others have done since")
}

// TestMessageThatKillsItsProcessIsCounted checks that such a message becomes a dead letter in the end.
func TestMessageThatKillsItsProcessIsCounted(t *testing.T) {
	t.Parallel()
	c := cluster(t)
	cfg := kafkapubsub.Config{Prefix: "poison.", Partitions: 1, SessionTimeout: time.Second}
	d := newDriver(t, c, cfg)
	s := childSub()
	s.Topic = pubsub.DeadLetterTopic("t", "g")
	dead := make(chan pubsub.Message, 10)
	reader := join(t, d, s, func(_ context.Context, m pubsub.Message) error { dead <- m; return nil })
	require.Nil(t, d.Publish(soon(t), []pubsub.Message{message("poison", "")}))
	for deaths := 0; ; deaths++ {
		_, lines := startMember(t, c, childMember{Config: cfg, Poison: "poison"})
		select {
		case m := <-dead:
			require.Equal(t, "poison", m.ID)
			require.Equal(t, 2, deaths, "with MaxAttempts 1 the second repetition is one too many")
			reader.leave(t)
			return
		case text, ok := <-lines:
			require.False(t, ok, text)
			require.Less(t, deaths, 5, "the message is delivered for ever")
		case <-time.After(patience):
			t.Fatal("the message does not become a dead letter")
		}
	}
}
