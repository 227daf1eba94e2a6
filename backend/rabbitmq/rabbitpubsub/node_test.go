package rabbitpubsub_test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"
)

// node is a RabbitMQ server of this process, which tests may kill, stop and fill. It takes seconds to start, so there is
// one for all of them, one after the other; it is running again after each.
type node struct {
	dir       string
	port      int
	tlsPort   int // for encrypted connections
	dist      int // the port for other servers
	authority *authority
	cmd       *exec.Cmd
}

var private struct {
	once sync.Once
	node *node
	err  error
}

// privateNode is the server. The test is skipped where none is installed.
func privateNode(t *testing.T) *node {
	t.Helper()
	if _, err := exec.LookPath(command("rabbitmq-server")); err != nil {
		if os.Getenv("BACKSTAY_REQUIRE_SERVICES") == "1" {
			t.Fatal(err)
		}
		t.Skipf("%v: install rabbitmq-server", err)
	}
	private.once.Do(func() { private.node, private.err = newNode() })
	require.NoError(t, private.err)
	require.NoError(t, private.node.await())
	return private.node
}

// command is a program of RabbitMQ, without the wrapper that some systems put round it to run it as another user.
func command(name string) string {
	if path := filepath.Join("/usr/lib/rabbitmq/bin", name); exec.Command(path).Path == path {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return name
}

func newNode() (*node, error) {
	dir, err := os.MkdirTemp("", "bstest-rabbitmq-")
	if err != nil {
		return nil, err
	}
	n := &node{dir: dir, port: freePort(), tlsPort: freePort(), dist: freePort()}
	if n.authority, err = newAuthority(); err != nil {
		return nil, err
	}
	if err := n.authority.write(dir); err != nil {
		return nil, err
	}
	conf := fmt.Sprintf("listeners.tcp.1 = 127.0.0.1:%d\nlisteners.ssl.1 = 127.0.0.1:%d\n", n.port, n.tlsPort)
	for option, file := range map[string]string{"cacertfile": "ca.pem", "certfile": "server.pem", "keyfile": "server.key"} {
		conf += fmt.Sprintf("ssl_options.%s = %s\n", option, filepath.Join(dir, file))
	}
	for name, text := range map[string]string{
		"plugins":        "[].\n",
		"rabbitmq.conf":  conf + "log.console = false\nlog.file.level = error\ndisk_free_limit.absolute = 10MB\n",
		".erlang.cookie": "bstest",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o400); err != nil {
			return nil, err
		}
	}
	return n, n.start()
}

// freePort is a port that nobody has, below those that the system gives to connections.
func freePort() int {
	for {
		port := 20_000 + rand.IntN(10_000)
		l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", port))
		if err == nil {
			_ = l.Close()
			return port
		}
	}
}

func (n *node) name() string { return fmt.Sprintf("bstest-%d@localhost", n.port) }

func (n *node) url() string { return fmt.Sprintf("amqp://guest:guest@127.0.0.1:%d", n.port) }

func (n *node) env() []string {
	in := func(name string) string { return filepath.Join(n.dir, name) }
	return append(os.Environ(), "HOME="+n.dir, "RUNNING_UNDER_SYSTEMD=true", // so that no shell remains before it
		"RABBITMQ_NODENAME="+n.name(), "RABBITMQ_NODE_IP_ADDRESS=127.0.0.1",
		fmt.Sprint("RABBITMQ_NODE_PORT=", n.port), fmt.Sprint("RABBITMQ_DIST_PORT=", n.dist),
		"RABBITMQ_MNESIA_BASE="+in("mnesia"), "RABBITMQ_LOG_BASE="+in("log"),
		"RABBITMQ_ENABLED_PLUGINS_FILE="+in("plugins"), "RABBITMQ_CONFIG_FILE="+in("rabbitmq.conf"))
}

func (n *node) start() error {
	n.cmd = exec.Command(command("rabbitmq-server"))
	n.cmd.Env, n.cmd.Dir = n.env(), n.dir
	dieWithTest(n.cmd)
	out, err := os.OpenFile(filepath.Join(n.dir, "out"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = out.Close() }()
	n.cmd.Stdout, n.cmd.Stderr = out, out
	return n.cmd.Start()
}

// await returns when the server takes connections.
func (n *node) await() error {
	for begun := time.Now(); ; <-time.After(50 * time.Millisecond) {
		conn, err := amqp.Dial(n.url())
		if err == nil {
			return conn.Close()
		}
		if time.Since(begun) > 2*patience { // a machine that has much else to do takes more than one minute
			out, _ := os.ReadFile(filepath.Join(n.dir, "out"))
			return fmt.Errorf("the private server does not start: %w\n%s", err, out)
		}
	}
}

// end ends the server, at once or in an orderly way. The process that was started has become the server.
func (n *node) end(signal syscall.Signal) error {
	if err := n.cmd.Process.Signal(signal); err != nil {
		return err
	}
	_ = n.cmd.Wait() // which tells of the signal
	return nil
}

// again ends the server and starts it on the same data.
func (n *node) again(t *testing.T, signal syscall.Signal) {
	t.Helper()
	require.NoError(t, n.end(signal))
	require.NoError(t, n.start())
	require.NoError(t, n.await())
}

// ctl runs rabbitmqctl for this server.
func (n *node) ctl(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(soon(t), command("rabbitmqctl"), append([]string{"-q", "-n", n.name()}, args...)...)
	cmd.Env = n.env()
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

func removeNode() {
	if n := private.node; n != nil {
		_ = n.end(syscall.SIGKILL)
		_ = os.RemoveAll(n.dir)
	}
}
