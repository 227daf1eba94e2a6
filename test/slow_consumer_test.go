package test

import (
	"cmp"
	"context"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/nats/natspubsub"
	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/pubsub/mempubsub"
)

// TestMemoryStaysFlatWhileAConsumerIsSlow has a producer that is several times as quick as the consumer. What waits must wait at
// the broker, or before it, and not pile up between the broker and the handlers.
func TestMemoryStaysFlatWhileAConsumerIsSlow(t *testing.T) {
	t.Run("memory", func(t *testing.T) {
		const room = 1000
		published, handled := slowConsumer(t, mempubsub.New(mempubsub.Config{MaxPending: room}))
		require.LessOrEqual(t, published, handled+room+2*callSize, "the publisher waits for room")
	})
	t.Run("NATS", func(t *testing.T) {
		published, handled := slowConsumer(t, slowConsumerBroker(t))
		require.Greater(t, published, handled+1000, "the producer was to be far quicker than that")
	})
}

const (
	callSize  = 100     // messages of one Publish
	heapRoom  = 4 << 20 // far less than what is published after the first look at the heap
	slowSize  = 2048
	slowPause = 10 * time.Millisecond // of the handler, for each message
)

// slowConsumer publishes for a while and returns how many messages were published and handled then.
func slowConsumer(t *testing.T, driver pubsub.Driver) (published, handled int) {
	t.Helper()
	length := 8 * time.Second
	if os.Getenv("BACKSTAY_LONG") == "1" {
		length = time.Minute
	}
	bus := pubsub.New(driver)
	defer func() { require.NoError(t, bus.Close()) }()
	consumer, err := bus.Open(t.Context(), pubsub.Subscription{Topic: "slow", Group: "slow", Concurrency: 1, DrainTimeout: 10 * time.Second})
	require.NoError(t, err)
	ctx, stop := context.WithTimeout(t.Context(), length)
	defer stop()
	var done atomic.Int64
	pace := time.NewTicker(slowPause)
	defer pace.Stop()
	ended := make(chan error, 1)
	go func() {
		ended <- consumer.Run(ctx, func(context.Context, pubsub.Message) error {
			<-pace.C
			done.Add(1)
			return nil
		})
	}()
	batch := make([]pubsub.Message, callSize)
	for i := range batch {
		batch[i] = pubsub.Message{Topic: "slow", Payload: make([]byte, slowSize)}
	}
	calls := time.NewTicker(50 * time.Millisecond)
	defer calls.Stop()
	first, begin := uint64(0), time.Now()
	for ctx.Err() == nil {
		if err := bus.Publish(ctx, batch...); err != nil {
			require.ErrorIs(t, err, context.DeadlineExceeded)
			break
		}
		published += callSize
		if first == 0 && time.Since(begin) > length/4 {
			first = heap()
		}
		select {
		case <-calls.C:
		case <-ctx.Done():
		}
	}
	last := heap()
	handled = int(done.Load())
	require.NoError(t, <-ended)
	require.NotZero(t, first)
	require.Positive(t, handled)
	require.LessOrEqual(t, last, first+heapRoom, "%d published, %d handled", published, handled)
	t.Logf("%d published, %d handled, heap %d and %d KiB", published, handled, first>>10, last>>10)
	return published, handled
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// slowConsumerBroker is a server of its own process, whose memory is not ours to count.
func slowConsumerBroker(t *testing.T) pubsub.Driver {
	t.Helper()
	url := cmp.Or(os.Getenv("BACKSTAY_NATS_URL"), "nats://127.0.0.1:4222")
	conn, err := nats.Connect(url, nats.Timeout(10*time.Second))
	if err != nil {
		reason := "nobody listens on " + url + ": start nats-server -js"
		if os.Getenv("BACKSTAY_REQUIRE_SERVICES") == "1" {
			t.Fatal(reason)
		}
		t.Skip(reason)
	}
	t.Cleanup(conn.Close)
	prefix := "slow-" + nuid.Next()
	t.Cleanup(func() { removeStreams(t, conn, prefix) })
	driver, err := natspubsub.New(t.Context(), conn, natspubsub.Config{Prefix: prefix})
	require.NoError(t, err)
	return driver
}

func removeStreams(t *testing.T, conn *nats.Conn, prefix string) {
	js, err := jetstream.New(conn)
	require.NoError(t, err)
	ctx := context.Background()
	names := js.StreamNames(ctx)
	for name := range names.Name() {
		if strings.HasPrefix(name, prefix) {
			require.NoError(t, js.DeleteStream(ctx, name))
		}
	}
	require.NoError(t, names.Err())
}
