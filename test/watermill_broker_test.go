package test

import (
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/nats/natsembed"
	"github.com/backstay-go/backstay/backend/nats/natspubsub"
	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/pubsub/mempubsub"
)

// watermillBroker is what the suite's publishers and subscribers share, each through a driver of its own.
type watermillBroker struct {
	connect func(t *testing.T) pubsub.Driver
	restart func() error
}

func inMemory(_ *testing.T, v watermillVariant) watermillBroker {
	cfg := mempubsub.Config{MaxPending: 20_000} // the suite publishes up to 10,000 messages before anybody reads
	if v.old {
		cfg.Retain = 20_000
	}
	first := mempubsub.New(cfg)
	return watermillBroker{connect: func(*testing.T) pubsub.Driver { return first.Connect() }}
}

func onEmbeddedNATS(t *testing.T, _ watermillVariant) watermillBroker {
	cfg := natsembed.Config{Dir: t.TempDir(), Listen: fmt.Sprint("127.0.0.1:", steadyPort(t))} // restarted on it
	server, err := natsembed.Start(cfg)
	require.NoError(t, err)
	url := server.URL()
	var mu sync.Mutex
	t.Cleanup(func() {
		mu.Lock()
		defer mu.Unlock()
		require.NoError(t, server.Close())
	})
	return watermillBroker{
		connect: func(t *testing.T) pubsub.Driver {
			driver, err := natspubsub.Open(eventually(t), url, natspubsub.Config{Prefix: "watermill", Lanes: 4},
				nats.ReconnectWait(20*time.Millisecond), nats.ReconnectJitter(0, 0))
			require.NoError(t, err)
			return driver
		},
		restart: func() error {
			mu.Lock()
			defer mu.Unlock()
			if err := server.Close(); err != nil {
				return err
			}
			next, err := natsembed.Start(cfg)
			if err == nil {
				server = next
			}
			return err
		},
	}
}

// watermillRestart is the address that asks for a restart are sent to.
const watermillRestart = "BACKSTAY_WATERMILL_RESTART"

// restartCommand is a command line that restarts the broker of this process: the suite knows no other way. It runs this binary
// again, which asks for the restart and waits for it.
func restartCommand(t *testing.T, restart func() error) []string {
	self, err := os.Executable()
	require.NoError(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Setenv(watermillRestart, listener.Addr().String())
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			answer := "done"
			if err := restart(); err != nil {
				answer = err.Error()
			}
			_, _ = io.WriteString(conn, answer)
			_ = conn.Close()
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		serving.Wait()
	})
	return []string{self, "-test.run=^TestWatermillRestart$"}
}

// TestWatermillRestart is what restartCommand runs; in any other process there is nothing for it to do.
func TestWatermillRestart(t *testing.T) {
	address := os.Getenv(watermillRestart)
	if address == "" {
		return
	}
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	answer, err := io.ReadAll(conn)
	require.NoError(t, err)
	require.Equal(t, "done", string(answer))
}
