package natsembed_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/backstay-go/backstay/backend/nats/natsembed"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T, cfg natsembed.Config, opts ...natsembed.Option) *natsembed.Server {
	t.Helper()
	srv, err := natsembed.Start(cfg, opts...)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, srv.Close()) })
	return srv
}

func connect(t *testing.T, srv *natsembed.Server) jetstream.JetStream {
	t.Helper()
	conn, err := srv.Connect()
	require.NoError(t, err)
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	require.NoError(t, err)
	return js
}

func TestGuaranteeMessagesOutliveTheServer(t *testing.T) {
	dir := t.TempDir()
	ctx := t.Context()
	t.Run("first", func(t *testing.T) {
		js := connect(t, start(t, natsembed.Config{Dir: dir, SyncAlways: true}))
		_, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "s", Subjects: []string{"s.>"}})
		require.NoError(t, err)
		_, err = js.Publish(ctx, "s.a", []byte("kept"))
		require.NoError(t, err)
	})
	t.Run("second", func(t *testing.T) {
		srv := start(t, natsembed.Config{Dir: dir})
		s, err := connect(t, srv).Stream(ctx, "s")
		require.NoError(t, err)
		m, err := s.GetMsg(ctx, 1)
		require.NoError(t, err)
		require.Equal(t, "kept", string(m.Data))
		require.Equal(t, uint64(1), srv.Stats().Messages)
	})
}

func TestGuaranteeOneServerPerDir(t *testing.T) {
	cfg := natsembed.Config{Dir: t.TempDir()}
	srv := start(t, cfg)
	_, err := natsembed.Start(cfg)
	require.ErrorIs(t, err, natsembed.ErrInUse)
	require.ErrorContains(t, err, cfg.Dir)
	require.NoError(t, srv.Close())
	start(t, cfg)
}

func TestGuaranteeNoTCPWithoutListen(t *testing.T) {
	srv := start(t, natsembed.Config{Dir: t.TempDir()})
	require.Empty(t, srv.URL())
	connect(t, srv)
	require.Equal(t, 1, srv.Stats().Connections)
}

func TestListenOnRandomPort(t *testing.T) {
	srv := start(t, natsembed.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	conn, err := nats.Connect(srv.URL())
	require.NoError(t, err)
	conn.Close()
}

func TestStartFailsOnTakenPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	cfg := natsembed.Config{Dir: t.TempDir(), Listen: l.Addr().String()}
	begin := time.Now()
	_, err = natsembed.Start(cfg)
	require.ErrorContains(t, err, "address already in use")
	require.Less(t, time.Since(begin), 20*time.Second, "the reason must not be waited for until StartTimeout")
}

func TestStartFailsOnBadDir(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err := natsembed.Start(natsembed.Config{Dir: file})
	require.Error(t, err)
}

func TestCloseTwice(t *testing.T) {
	srv := start(t, natsembed.Config{Dir: t.TempDir()})
	require.NoError(t, srv.Close())
	require.NoError(t, srv.Close())
	require.Zero(t, srv.Stats())
	_, err := srv.Connect(nats.Timeout(time.Second))
	require.Error(t, err)
}

func TestValidateNamesEveryFault(t *testing.T) {
	err := natsembed.Config{Listen: "0.0.0.0:4222", StartTimeout: -1}.Validate()
	for _, want := range []string{"Config.Dir", `Config.Listen is "0.0.0.0:4222"`, "Config.StartTimeout"} {
		require.ErrorContains(t, err, want)
	}
	for _, listen := range []string{"x", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:70000", ":4222", "example.com:1", "[::]:1"} {
		require.ErrorContains(t, natsembed.Config{Dir: "d", Listen: listen}.Validate(), "Config.Listen")
	}
	for _, listen := range []string{"127.0.0.1:0", "localhost:4222", "[::1]:4222", "127.1.2.3:1"} {
		require.NoError(t, natsembed.Config{Dir: "d", Listen: listen}.Validate())
	}
	_, err = natsembed.Start(natsembed.Config{})
	require.ErrorContains(t, err, "Config.Dir")
}

func TestConfigJSON(t *testing.T) {
	cfg := natsembed.Config{Name: "n", Dir: "d", Listen: "localhost:0", SyncAlways: true, StartTimeout: time.Minute}
	b, err := json.Marshal(cfg)
	require.NoError(t, err)
	require.JSONEq(t, `{"name":"n","dir":"d","listen":"localhost:0","sync_always":true,"start_timeout":"1m0s"}`, string(b))
	var back natsembed.Config
	require.NoError(t, json.Unmarshal(b, &back))
	require.Equal(t, cfg, back)
	require.Error(t, json.Unmarshal([]byte(`{"directory":"d"}`), &back))
	require.Error(t, json.Unmarshal([]byte(`{"start_timeout":"soon"}`), &back))
	require.Equal(t, cfg, back, "a bad document must change nothing")
}

func TestWithLogger(t *testing.T) {
	_, err := natsembed.Start(natsembed.Config{Dir: t.TempDir()}, natsembed.WithLogger(nil))
	require.ErrorContains(t, err, "nil")

	var out bytes.Buffer
	debug := &slog.HandlerOptions{Level: slog.LevelDebug}
	srv := start(t, natsembed.Config{Dir: t.TempDir()}, natsembed.WithLogger(slog.New(slog.NewTextHandler(&out, debug))))
	conn, err := srv.Connect()
	require.NoError(t, err)
	conn.Close()
	require.NoError(t, srv.Close())
	require.Contains(t, out.String(), "Server is ready")
	require.Contains(t, out.String(), "level=DEBUG")
	require.NotContains(t, out.String(), "level=ERROR")
}

func TestObservability(t *testing.T) {
	srv := start(t, natsembed.Config{Dir: t.TempDir()})
	kind, name, cfg := srv.Describe()
	require.Equal(t, "natsembed", kind)
	require.Equal(t, "backstay", name)
	require.Equal(t, 30*time.Second, cfg.(natsembed.Config).StartTimeout)
	require.Len(t, maps.Collect(srv.Metrics()), 5)
	for range srv.Metrics() {
		break
	}
}

func TestConcurrentClose(t *testing.T) {
	srv := start(t, natsembed.Config{Dir: t.TempDir()})
	errs := make(chan error, 4)
	for range cap(errs) {
		go func() { errs <- srv.Close() }()
	}
	for range cap(errs) {
		require.NoError(t, <-errs)
	}
}
