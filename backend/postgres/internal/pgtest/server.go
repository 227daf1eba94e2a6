package pgtest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
)

// Server is a private PostgreSQL server, ended and removed with the test.
type Server struct {
	// Dir holds its files, for a test that takes their space away.
	Dir        string
	port       uint16
	bin        string
	credential *syscall.Credential
	args       []string
	cmd        *exec.Cmd
	log        bytes.Buffer
}

// Start makes a new cluster and runs a server on it, with settings such as "-c", "max_connections=20". The test is skipped when
// PostgreSQL is not installed, or fails with BACKSTAY_REQUIRE_SERVICES=1.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	return StartIn(t, "", args...)
}

// StartIn is Start with the tables in parent, an existing directory, and the write-ahead log in the temporary directory.
func StartIn(t testing.TB, parent string, args ...string) *Server {
	t.Helper()
	s := &Server{bin: binaries(t), args: args, port: freePort(t)}
	s.becomePostgres(t)
	wal := s.directory(t, "")
	s.Dir = s.directory(t, parent)
	t.Cleanup(func() { s.Kill(t) })
	initdb := s.command("initdb", "-D", filepath.Join(s.Dir, "data"), "-X", filepath.Join(wal, "wal"),
		"-U", "postgres", "-A", "trust", "-N", "--no-locale", "-E", "UTF8")
	if out, err := initdb.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v: %s", err, out)
	}
	s.run(t)
	return s
}

// directory makes one that belongs to the server's user. It is removed with the test, after the server has ended.
func (s *Server) directory(t testing.TB, parent string) string {
	t.Helper()
	dir, err := os.MkdirTemp(parent, "bstest-postgres-") //nolint:usetesting // another user must reach it, through directories that t.TempDir closes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if s.credential != nil {
		if err := os.Chown(dir, int(s.credential.Uid), int(s.credential.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// binaries is the directory of the newest PostgreSQL installed.
func binaries(t testing.TB) string {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if path, err := exec.LookPath("initdb"); err == nil && len(found) == 0 {
		found = append(found, path)
	}
	if len(found) == 0 {
		unavailable(t, "initdb is not installed: install PostgreSQL's server")
	}
	return filepath.Dir(slices.Max(found))
}

// becomePostgres makes the server run as the user postgres where this process is root, which the server refuses to be.
func (s *Server) becomePostgres(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		return
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		unavailable(t, "a server cannot run as root: %v", err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	s.credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

func (s *Server) command(name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(context.Background(), filepath.Join(s.bin, name), args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.credential, Setpgid: true}
	cmd.Dir = s.Dir
	return cmd
}

func freePort(t testing.TB) uint16 {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

// URL is that of its database postgres.
func (s *Server) URL() string { return URL("127.0.0.1", s.port, "postgres", "", "postgres") }

// Addr is its host:port.
func (s *Server) Addr() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

func (s *Server) run(t testing.TB) {
	t.Helper()
	args := append([]string{"-D", filepath.Join(s.Dir, "data"), "-p", strconv.Itoa(int(s.port)), "-k", s.Dir, "-h", "127.0.0.1",
		"-c", "shared_buffers=32MB"}, s.args...)
	s.cmd = s.command("postgres", args...)
	s.cmd.Stderr = &s.log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	Eventually(t, "the private server answers", func() bool { return try(s.URL(), "SELECT 1") == nil })
}

// Kill ends the server and all its processes at once, as a crash of the machine would, short of losing what was written. It does nothing
// where the server is not running.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	if s.cmd == nil {
		return
	}
	if err := s.cmd.Process.Kill(); err != nil { // the others see that and end themselves
		t.Error(err)
	}
	_ = s.cmd.Wait() // its error says that it was killed
	s.cmd = nil
}

// Restart runs the server again on what it left behind.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	s.Kill(t)
	s.run(t)
}

// Log is what the server has written; read it when it is not running.
func (s *Server) Log() string { return s.log.String() }

// Tool runs pg_dump or the like against the server and returns its output.
func (s *Server) Tool(t testing.TB, input []byte, name string, args ...string) []byte {
	t.Helper()
	cmd := s.command(name, append([]string{"-h", "127.0.0.1", "-p", strconv.Itoa(int(s.port)), "-U", "postgres"}, args...)...)
	cmd.Stdin = bytes.NewReader(input)
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v: %s", name, err, problems.String())
	}
	return out.Bytes()
}

// Exec runs a statement on a connection of its own and fails the test with its error.
func Exec(t testing.TB, url, query string, args ...any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.Exec(ctx, query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}
