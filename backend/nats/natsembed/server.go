package natsembed

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// ErrInUse is wrapped by the error of Start when another server, in this process or another, has Dir open.
var ErrInUse = errors.New("the directory is in use by another server")

// Server is a NATS server with JetStream inside this process. Start makes one; it runs until Close. Its methods are
// safe for concurrent use.
type Server struct {
	cfg    Config
	log    logger
	nats   *server.Server
	unlock func() error
	close  func() error
}

// Start runs a server on cfg.Dir and returns once it accepts connections. It fails when cfg is invalid, when Dir cannot
// be used or is in use (ErrInUse), when Listen is taken, or after StartTimeout; then nothing is left running. The
// caller calls Close.
func Start(cfg Config, opts ...Option) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg.withDefaults(), log: logger{out: slog.New(slog.DiscardHandler), fatal: make(chan error, 1)}}
	s.close = sync.OnceValue(s.stop)
	for _, opt := range opts {
		if err := opt(s); err != nil {
			return nil, err
		}
	}
	if err := s.start(); err != nil {
		return nil, fmt.Errorf("natsembed %q: %w", s.cfg.Name, err)
	}
	return s, nil
}

func (s *Server) start() error {
	if err := os.MkdirAll(s.cfg.Dir, 0o750); err != nil {
		return err
	}
	unlock, err := lock(filepath.Join(s.cfg.Dir, "backstay.lock"))
	if err != nil {
		return fmt.Errorf("directory %s: %w", s.cfg.Dir, err)
	}
	s.unlock = unlock
	if s.nats, err = server.NewServer(s.options()); err != nil {
		return errors.Join(err, unlock())
	}
	debug := s.log.out.Enabled(context.Background(), slog.LevelDebug)
	s.nats.SetLoggerV2(&s.log, debug, false, false)
	go s.nats.Start()
	if err := s.awaitReady(); err != nil {
		return errors.Join(err, s.close())
	}
	return nil
}

func (s *Server) options() *server.Options {
	o := &server.Options{
		ServerName: s.cfg.Name,
		JetStream:  true,
		StoreDir:   s.cfg.Dir,
		SyncAlways: s.cfg.SyncAlways,
		NoSigs:     true,
		DontListen: s.cfg.Listen == "",
	}
	if s.cfg.Listen != "" {
		host, port, _ := s.cfg.address() // Validate has seen it
		if port == 0 {
			port = server.RANDOM_PORT
		}
		o.Host, o.Port = host, port
	}
	return o
}

// awaitReady returns when the server accepts connections, or says why it never will.
func (s *Server) awaitReady() error {
	const step = 50 * time.Millisecond
	for deadline := time.Now().Add(s.cfg.StartTimeout); ; {
		ready := s.nats.ReadyForConnections(step)
		select {
		case err := <-s.log.fatal:
			return err
		default:
		}
		if ready && s.nats.JetStreamEnabled() {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not ready after StartTimeout, %s", s.cfg.StartTimeout)
		}
	}
}

// Connect returns a connection through memory, without TCP: the quicker way for one call at a time, while TCP carries
// bulk better. The caller closes it, before Close of the server; options are those of nats.Connect.
func (s *Server) Connect(opts ...nats.Option) (*nats.Conn, error) {
	conn, err := nats.Connect("", append([]nats.Option{nats.InProcessServer(s.nats)}, opts...)...)
	if err != nil {
		return nil, fmt.Errorf("natsembed %q: %w", s.cfg.Name, err)
	}
	return conn, nil
}

// URL is the address for nats.Connect over TCP, with the port that was taken; empty without Listen.
func (s *Server) URL() string {
	addr, ok := s.nats.Addr().(*net.TCPAddr)
	if !ok {
		return ""
	}
	host, _, _ := s.cfg.address() // Validate has seen it
	return "nats://" + net.JoinHostPort(host, strconv.Itoa(addr.Port))
}

// Close stops the server, cuts its connections, writes what it holds to Dir and returns when it has ended. It can be
// called more than once.
func (s *Server) Close() error { return s.close() }

func (s *Server) stop() error {
	s.nats.Shutdown()
	s.nats.WaitForShutdown()
	return s.unlock()
}

// Stats is a snapshot of a Server.
type Stats struct {
	// Connections is the number of clients connected now.
	Connections int
	// Streams and Consumers are the numbers that the server keeps.
	Streams, Consumers int
	// Messages and Bytes are what is stored in all streams.
	Messages, Bytes uint64
}

// Stats counts what the server holds. It is zero after Close.
func (s *Server) Stats() Stats {
	info, err := s.nats.Jsz(nil)
	if err != nil {
		return Stats{}
	}
	return Stats{Connections: s.nats.NumClients(), Streams: info.Streams, Consumers: info.Consumers,
		Messages: info.Messages, Bytes: info.Bytes}
}

// Describe names the server for consoles and telemetry; config is its Config with defaults filled in.
func (s *Server) Describe() (kind, name string, config any) { return "natsembed", s.cfg.Name, s.cfg }

// Metrics yields Stats by name.
func (s *Server) Metrics() iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) {
		st := s.Stats()
		_ = yield("connections", float64(st.Connections)) &&
			yield("streams", float64(st.Streams)) &&
			yield("consumers", float64(st.Consumers)) &&
			yield("messages", float64(st.Messages)) &&
			yield("bytes", float64(st.Bytes))
	}
}
