package test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/backstay-go/backstay/backend/redis/redispubsub"
)

func environment(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func rabbitURL() string {
	return environment("BACKSTAY_RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672")
}

func redisURL() string { return environment("BACKSTAY_REDIS_URL", "redis://127.0.0.1:6379") }

// needed skips the test when a server is missing, or fails it with BACKSTAY_REQUIRE_SERVICES=1.
func needed(t *testing.T, err error, start string) {
	t.Helper()
	if err == nil {
		return
	}
	require.NotEqual(t, "1", os.Getenv("BACKSTAY_REQUIRE_SERVICES"), "%v: %s", err, start)
	t.Skipf("%v: %s", err, start)
}

func needsRabbitMQ(t *testing.T) {
	t.Helper()
	conn, err := amqp.Dial(rabbitURL())
	needed(t, err, "start RabbitMQ with 'rabbitmq-server -detached', or set BACKSTAY_RABBITMQ_URL")
	require.NoError(t, conn.Close())
}

func needsRedis(t *testing.T) {
	t.Helper()
	option, err := rueidis.ParseURL(redisURL())
	require.NoError(t, err)
	conn, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(t.Context(), "tcp", option.InitAddress[0])
	needed(t, err, "start Redis with 'redis-server', or set BACKSTAY_REDIS_URL")
	require.NoError(t, conn.Close())
}

var ownNames atomic.Int64

// ownName is a name on a shared server that nobody else has.
func ownName() string {
	return fmt.Sprintf("bstest-%d-%d-%d", os.Getpid(), time.Now().UnixNano(), ownNames.Add(1))
}

// ownVhost is the URL of a virtual host for this test on the shared RabbitMQ; with it goes all that the test has made there.
func ownVhost(t *testing.T) string {
	t.Helper()
	needsRabbitMQ(t)
	name := ownName()
	needed(t, rabbitmqctl("add_vhost", name), "rabbitmqctl must be allowed to make a virtual host")
	t.Cleanup(func() { require.NoError(t, rabbitmqctl("delete_vhost", name)) })
	require.NoError(t, rabbitmqctl("set_permissions", "-p", name, "guest", ".*", ".*", ".*"))
	return strings.TrimSuffix(rabbitURL(), "/") + "/" + name
}

func rabbitmqctl(args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "rabbitmqctl", append([]string{"-q"}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("rabbitmqctl %s: %w: %s", args[0], err, out)
	}
	return nil
}

// ownRedisPrefix is a prefix for this test on the shared Redis, whose keys are removed after it.
func ownRedisPrefix(t *testing.T) string {
	t.Helper()
	needsRedis(t)
	prefix := ownName()
	t.Cleanup(func() {
		option, err := redispubsub.ClientOption(redisURL())
		require.NoError(t, err)
		client, err := rueidis.NewClient(option)
		require.NoError(t, err)
		defer client.Close()
		for cursor, done := uint64(0), false; !done; done = cursor == 0 {
			page, err := client.Do(context.Background(), client.B().Scan().Cursor(cursor).Match("{"+prefix+"*").Count(1000).Build()).AsScanEntry()
			require.NoError(t, err)
			for _, key := range page.Elements {
				require.NoError(t, client.Do(context.Background(), client.B().Unlink().Key(key).Build()).Error())
			}
			cursor = page.Cursor
		}
	})
	return prefix
}

// ownRedis is the URL of a Redis server for this test, with these settings.
func ownRedis(t *testing.T, settings ...string) string {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	needed(t, err, "install redis-server")
	free, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	port := free.Addr().(*net.TCPAddr).Port
	require.NoError(t, free.Close())
	server := exec.CommandContext(context.Background(), path, append([]string{
		"--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--dir", t.TempDir(), "--save", ""}, settings...)...)
	require.NoError(t, server.Start())
	t.Cleanup(func() {
		require.NoError(t, server.Process.Kill())
		_ = server.Wait() // which says that it was killed
	})
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	require.Eventually(t, func() bool {
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(t.Context(), "tcp", address)
		return errors.Join(err, closed(conn)) == nil
	}, time.Minute, 20*time.Millisecond)
	return "redis://" + address
}

func closed(conn net.Conn) error {
	if conn == nil {
		return nil
	}
	return conn.Close()
}

// ownKafka is a cluster of one broker in this process, whose seeds it returns.
func ownKafka(t *testing.T) string {
	t.Helper()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	return "kafka://" + strings.Join(cluster.ListenAddrs(), ",")
}
