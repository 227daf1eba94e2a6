// Package redistest gives tests the Redis server of the machine, and private ones that they may hurt.
package redistest

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// SharedURL is the server that other tests use as well, found by BACKSTAY_REDIS_URL. It must not be hurt. The test is
// skipped when there is none, or fails with BACKSTAY_REQUIRE_SERVICES=1.
func SharedURL(t testing.TB) string {
	t.Helper()
	url := os.Getenv("BACKSTAY_REDIS_URL")
	if url == "" {
		url = "redis://127.0.0.1:6379"
	}
	host, _, _ := strings.Cut(url[strings.LastIndexAny(url, "/@")+1:], "/")
	conn, err := (&net.Dialer{Timeout: 2 * time.Second}).DialContext(t.Context(), "tcp", host)
	switch {
	case err == nil:
		_ = conn.Close()
	case os.Getenv("BACKSTAY_REQUIRE_SERVICES") == "1":
		t.Fatalf("no Redis server at %s: %v", url, err)
	default:
		t.Skipf("no Redis server at %s (%v): start one with 'redis-server', or set BACKSTAY_REDIS_URL", url, err)
	}
	return url
}

var prefixes atomic.Int64

// Prefix is one that no other test has.
func Prefix(testing.TB) string {
	return fmt.Sprintf("bstest-%d-%d-%d", os.Getpid(), time.Now().UnixNano(), prefixes.Add(1))
}

// Server is a private redis-server, ended with the test.
type Server struct {
	// Addr is its host:port.
	Addr string
	port string
	dir  string
	args []string
	cmd  *exec.Cmd
}

// Start runs a server that keeps everything in memory, with further arguments as on its command line. The test is
// skipped when redis-server is not installed, or fails with BACKSTAY_REQUIRE_SERVICES=1.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		if os.Getenv("BACKSTAY_REQUIRE_SERVICES") == "1" {
			t.Fatal(err)
		}
		t.Skipf("%v: install redis-server", err)
	}
	addr := freeAddr(t)
	_, port, _ := net.SplitHostPort(addr)
	s := &Server{Addr: addr, port: port, dir: t.TempDir(), args: args}
	s.run(t)
	t.Cleanup(func() { s.Kill(t) })
	return s
}

// freeAddr is a loopback address on which a server and, 10,000 above it, its cluster bus can listen.
func freeAddr(t testing.TB) string {
	t.Helper()
	for range 100 {
		l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).Port
		_ = l.Close()
		if port < 55000 {
			return fmt.Sprintf("127.0.0.1:%d", port)
		}
	}
	t.Fatal("no free port")
	return ""
}

func (s *Server) run(t testing.TB) {
	t.Helper()
	args := append([]string{"--port", s.port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", s.dir,
		"--logfile", filepath.Join(s.dir, "log")}, s.args...)
	s.cmd = exec.CommandContext(context.Background(), "redis-server", args...)
	EndWithParent(s.cmd)
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	Eventually(t, "the private server answers", func() bool {
		answer, err := s.try("PING")
		return err == nil && (answer == "+PONG" || strings.HasPrefix(answer, "-NOAUTH"))
	})
}

// Kill ends the server at once, as a crash would; it may be stopped.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	if s.cmd == nil {
		return
	}
	if err := s.cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = s.cmd.Wait() // its error says that it was killed
	s.cmd = nil
}

// Restart runs the server again, on the same address and without its data.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	s.Kill(t)
	s.run(t)
}

// Stop freezes the server: its connections stay up and nothing is answered.
func (s *Server) Stop(t testing.TB) { s.signal(t, syscall.SIGSTOP) }

// Continue ends Stop.
func (s *Server) Continue(t testing.TB) { s.signal(t, syscall.SIGCONT) }

func (s *Server) signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}

// Do sends a command of plain words on a connection of its own and returns the first line of the answer.
func (s *Server) Do(t testing.TB, words ...string) string {
	t.Helper()
	answer, err := s.try(words...)
	if err != nil || strings.HasPrefix(answer, "-") {
		t.Fatalf("%v: %q %v", words, answer, err)
	}
	return answer
}

func (s *Server) try(words ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", s.Addr)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintf(conn, "%s\r\n", strings.Join(words, " ")); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimRight(line, "\r\n"), err
}

// Commands are the names of the commands that the server executes during do, which has to be the only one to use it, but
// for those with which clients look after their connections.
func (s *Server) Commands(t testing.TB, do func()) []string {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprint(conn, "MONITOR\r\n"); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(conn)
	lines.Scan() // +OK
	do()
	s.Do(t, "ECHO", "end")
	var names []string
	for lines.Scan() {
		// +1700000000.123456 [0 127.0.0.1:1234] "GET" "key"
		_, command, _ := strings.Cut(lines.Text(), `] "`)
		name, _, _ := strings.Cut(command, `"`)
		switch name = strings.ToUpper(name); name {
		case "ECHO":
			return names
		case "PING", "HELLO", "CLIENT", "AUTH", "SELECT": // a client's own, for its connections
		default:
			names = append(names, name)
		}
	}
	t.Fatalf("the monitor ended: %v", lines.Err())
	return nil
}

// StartCluster runs three masters that share the slots, and returns once they agree.
func StartCluster(t testing.TB) []*Server {
	t.Helper()
	var nodes []*Server
	for range 3 {
		nodes = append(nodes, Start(t, "--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"))
	}
	for i, node := range nodes {
		slots := []string{"0 5460", "5461 10922", "10923 16383"}[i]
		node.Do(t, "CLUSTER", "ADDSLOTSRANGE", slots)
		node.Do(t, "CLUSTER", "SET-CONFIG-EPOCH", fmt.Sprint(i+1))
	}
	for _, node := range nodes[1:] {
		node.Do(t, "CLUSTER", "MEET", "127.0.0.1", nodes[0].port)
	}
	for _, node := range nodes {
		Eventually(t, "the cluster is up", func() bool {
			return node.lines(t, "CLUSTER INFO", "cluster_state:ok") && node.lines(t, "CLUSTER INFO", "cluster_known_nodes:3")
		})
	}
	return nodes
}

// lines reports whether the answer to command, a bulk string, has that line.
func (s *Server) lines(t testing.TB, command, line string) bool {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", s.Addr)
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := fmt.Fprintf(conn, "%s\r\nQUIT\r\n", command); err != nil {
		return false
	}
	for scanner := bufio.NewScanner(conn); scanner.Scan(); {
		if strings.TrimSpace(scanner.Text()) == line {
			return true
		}
	}
	return false
}

// patience is how long a test waits for what must come.
const patience = time.Minute

// Eventually returns once condition holds, and fails the test when it does not within a minute.
func Eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for !condition() {
		select {
		case <-poll.C:
		case <-deadline.C:
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}
