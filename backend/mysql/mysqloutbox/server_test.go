package mysqloutbox_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	osexec "os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/mysql/mysqloutbox"
)

// server is a private MariaDB, which may be killed.
type server struct {
	dir  string
	port int
	cmd  *osexec.Cmd
	log  *os.File
}

// newServer starts a server with data of its own in a temporary directory.
func newServer(t testing.TB) *server {
	t.Helper()
	for _, program := range []string{"mariadbd", "mariadb-install-db"} {
		if _, err := osexec.LookPath(program); err != nil {
			absent(t, program+" is not in the PATH: install it with: apt-get install mariadb-server")
		}
	}
	dir := t.TempDir()
	s := &server{dir: dir, port: freePort(t)}
	install := osexec.CommandContext(t.Context(), "mariadb-install-db", "--no-defaults", "--datadir="+s.data(), "--user="+userName(),
		"--auth-root-authentication-method=normal", "--skip-test-db")
	out, err := install.CombinedOutput()
	require.NoError(t, err, "%s", out)
	s.log, err = os.Create(filepath.Join(dir, "log"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.log.Close()) })
	s.start(t)
	t.Cleanup(func() {
		s.kill(t)
		_ = os.Remove(s.socket())
	})
	return s
}

// socket has a short path, as it must; it is not used.
func (s *server) socket() string {
	return filepath.Join(os.TempDir(), fmt.Sprint("bstest-mariadb-", s.port))
}

func (s *server) data() string { return filepath.Join(s.dir, "data") }

func userName() string {
	if name := os.Getenv("USER"); name != "" && os.Getuid() != 0 {
		return name
	}
	return "root"
}

// start waits until the server answers.
func (s *server) start(t testing.TB) {
	t.Helper()
	s.cmd = osexec.Command("mariadbd", "--no-defaults", "--datadir="+s.data(), "--user="+userName(), fmt.Sprint("--port=", s.port),
		"--bind-address=127.0.0.1", "--socket="+s.socket(), "--pid-file="+filepath.Join(s.dir, "pid"),
		"--innodb-buffer-pool-size=32M", "--innodb-log-file-size=16M", "--skip-name-resolve")
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(t, s.cmd.Start())
	eventually(t, "the private server", func() bool {
		db, err := mysqloutbox.Open(t.Context(), s.url()+"mysql", mysqloutbox.Config{})
		if err != nil {
			if s.cmd.Process.Signal(syscall.Signal(0)) != nil {
				text, _ := os.ReadFile(s.log.Name())
				t.Fatalf("mariadbd has ended:\n%s", bytes.TrimSpace(text))
			}
			return false
		}
		require.NoError(t, db.Close())
		return true
	})
}

// url is the server's, without a database.
func (s *server) url() string { return fmt.Sprintf("mysql://root@127.0.0.1:%d/", s.port) }

// kill is SIGKILL: nothing is flushed.
func (s *server) kill(t testing.TB) {
	t.Helper()
	if s.cmd.ProcessState != nil {
		return
	}
	require.NoError(t, s.cmd.Process.Kill())
	_ = s.cmd.Wait() // it says that it was killed
}

// proxy passes connections on to a server until it is told otherwise.
type proxy struct {
	listener net.Listener
	server   string
	mu       sync.Mutex
	open     map[net.Conn]bool
	// deaf, once set, passes what the client says and nothing of what the server answers.
	deaf func(said []byte) bool
	wg   sync.WaitGroup
}

func newProxy(t testing.TB, server string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &proxy{listener: l, server: server, open: map[net.Conn]bool{}}
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		require.NoError(t, l.Close())
		p.cut()
		p.wg.Wait()
	})
	return p
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.server)
		if err != nil {
			_ = client.Close()
			continue
		}
		p.mu.Lock()
		p.open[client], p.open[server] = true, true
		p.mu.Unlock()
		pair := &pair{proxy: p, client: client, server: server}
		p.wg.Go(pair.up)
		p.wg.Go(pair.down)
	}
}

// cut closes every connection.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.open {
		_ = c.Close()
		delete(p.open, c)
	}
}

// cutReply closes the next connection on which the client says something that contains text, after the server has answered it and
// before the client hears it.
func (p *proxy) cutReply(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deaf = func(said []byte) bool { return bytes.Contains(said, []byte(text)) }
}

// asked tells, once, that the answer to said must not come through.
func (p *proxy) asked(said []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.deaf == nil || !p.deaf(said) {
		return false
	}
	p.deaf = nil
	return true
}

// pair is a connection and its continuation.
type pair struct {
	proxy          *proxy
	client, server net.Conn
	deaf           atomic.Bool
}

func (c *pair) up() {
	defer c.close()
	buffer := make([]byte, 1<<16)
	for {
		n, err := c.client.Read(buffer)
		if err != nil {
			return
		}
		if c.proxy.asked(buffer[:n]) {
			c.deaf.Store(true)
		}
		if _, err := c.server.Write(buffer[:n]); err != nil {
			return
		}
	}
}

func (c *pair) down() {
	defer c.close()
	buffer := make([]byte, 1<<16)
	for {
		n, err := c.server.Read(buffer)
		if err != nil || c.deaf.Load() {
			return
		}
		if _, err := c.client.Write(buffer[:n]); err != nil {
			return
		}
	}
}

func (c *pair) close() {
	_ = c.client.Close()
	_ = c.server.Close()
}
