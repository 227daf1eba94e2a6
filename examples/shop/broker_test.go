package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/redis/redispubsub"
)

// running is the address of a broker that others use as well, from the environment or the standard one.
func running(t *testing.T, variable, standard, start string) string {
	t.Helper()
	address := os.Getenv(variable)
	if address == "" {
		address = standard
	}
	u, err := url.Parse(address)
	require.NoError(t, err)
	conn, err := net.DialTimeout("tcp", u.Host, 10*time.Second)
	if err == nil {
		require.NoError(t, conn.Close())
		return address
	}
	reason := variable + ": nobody listens on " + u.Host + ": " + start
	if os.Getenv("BACKSTAY_REQUIRE_SERVICES") == "1" {
		t.Fatal(reason)
	}
	t.Skip(reason)
	return ""
}

func natsServer(t *testing.T) string {
	return running(t, "BACKSTAY_NATS_URL", "nats://127.0.0.1:4222", "start it with nats-server -js")
}

func rabbitServer(t *testing.T) string {
	return running(t, "BACKSTAY_RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672", "start it with rabbitmq-server -detached")
}

func redisServer(t *testing.T) string {
	return running(t, "BACKSTAY_REDIS_URL", "redis://127.0.0.1:6379", "start it with redis-server --daemonize yes")
}

func TestTheShopHoldsOnAnyBroker(t *testing.T) {
	for name, address := range map[string]func(*testing.T) string{
		"memory":   func(*testing.T) string { return "mem:" },
		"NATS":     natsServer,
		"RabbitMQ": rabbitServer,
		"Redis":    redisServer,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, code := runJSON(t.Context(), t, "-orders", "50", "-rate", "20", "-broker", address(t))
			requireProof(t, r)
			require.Zero(t, code)
			require.Positive(t, r.Redeliveries)
		})
	}
}

// servers are the brokers that others use as well: what is left of a shop there, and how it goes.
var servers = map[string]struct {
	address func(*testing.T) string
	left    func(t *testing.T, prefix string) []string
	remove  func(ctx context.Context, address, prefix string) error
}{
	"NATS":     {natsServer, leftOnNATS, removeStreams},
	"RabbitMQ": {rabbitServer, leftOnRabbitMQ, removeQueues},
	"Redis":    {redisServer, leftOnRedis, removeKeys},
}

func leftOnNATS(t *testing.T, prefix string) (mine []string) {
	conn, err := nats.Connect(natsServer(t))
	require.NoError(t, err)
	defer conn.Close()
	js, err := jetstream.New(conn)
	require.NoError(t, err)
	names := js.StreamNames(t.Context())
	for name := range names.Name() {
		if strings.HasPrefix(name, prefix) {
			mine = append(mine, name)
		}
	}
	require.NoError(t, names.Err())
	return mine
}

// leftOnRabbitMQ asks for every name, since the protocol has no list. A channel ends with the first that is not there.
func leftOnRabbitMQ(t *testing.T, prefix string) (mine []string) {
	conn, err := amqp.Dial(rabbitServer(t))
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	look := func(names []string, declare func(*amqp.Channel, string) error) {
		for _, name := range names {
			ch, err := conn.Channel()
			require.NoError(t, err)
			if declare(ch, name) == nil {
				mine = append(mine, name)
				require.NoError(t, ch.Close())
			}
		}
	}
	queues, exchanges := rabbitNames(prefix)
	look(queues, func(ch *amqp.Channel, name string) error {
		_, err := ch.QueueDeclarePassive(name, true, false, false, false, nil)
		return err
	})
	look(exchanges, func(ch *amqp.Channel, name string) error {
		return ch.ExchangeDeclarePassive(name, "topic", true, false, false, false, nil)
	})
	return mine
}

func leftOnRedis(t *testing.T, prefix string) []string {
	options, err := redispubsub.ClientOption(redisServer(t))
	require.NoError(t, err)
	client, err := rueidis.NewClient(options)
	require.NoError(t, err)
	defer client.Close()
	keys, err := client.Do(t.Context(), client.B().Keys().Pattern("*"+prefix+"*").Build()).AsStrSlice()
	require.NoError(t, err)
	return keys
}

func TestTheEventsStayWithTheDataAndGoWithThem(t *testing.T) {
	for name, server := range servers {
		t.Run(name, func(t *testing.T) {
			t.Setenv("TMPDIR", t.TempDir())
			var stdout, stderr bytes.Buffer
			require.Zero(t, run(t.Context(), []string{"-orders", "5", "-chaos=false", "-broker", server.address(t)}, &stdout, &stderr), &stderr)
			_, folder, _ := strings.Cut(stderr.String(), "keeps its data in ")
			folder, _, _ = strings.Cut(folder, " ")
			require.DirExists(t, filepath.Dir(folder))
			temporary := &shop{cfg: settings{data: folder}}
			require.Empty(t, server.left(t, temporary.prefix()))

			data := t.TempDir()
			kept := &shop{cfg: settings{data: data}}
			t.Cleanup(func() { _ = server.remove(context.Background(), server.address(t), kept.prefix()) })
			r, _ := runJSON(t.Context(), t, "-orders", "5", "-chaos=false", "-data", data, "-broker", server.address(t))
			requireProof(t, r)
			require.NotEmpty(t, server.left(t, kept.prefix()))
			r, _ = runJSON(t.Context(), t, "-orders", "10", "-chaos=false", "-data", data, "-broker", server.address(t))
			requireProof(t, r)
			require.Equal(t, 10, r.Orders)
			require.NoError(t, server.remove(t.Context(), server.address(t), kept.prefix()))
			require.Empty(t, server.left(t, kept.prefix()))
		})
	}
}

// The shop names what it removes from RabbitMQ. All of it comes to be there, so no name is out of date: the queues by which
// the members of a group share its lanes once these have looked for each other.
func TestTheShopKnowsTheNamesOfItsQueues(t *testing.T) {
	s, err := openShop(t.Context(), settings{data: t.TempDir(), addr: anyPort, broker: rabbitServer(t)}, nil, io.Discard)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.removeEvents(context.Background())) })
	t.Cleanup(func() { require.NoError(t, s.close()) })
	queues, exchanges := rabbitNames(s.prefix())
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		assert.ElementsMatch(c, slices.Concat(queues, exchanges), leftOnRabbitMQ(t, s.prefix()))
	}, 30*time.Second, 100*time.Millisecond)
	require.Len(t, queues, 25, "two lanes of five groups, their dead letters, of which each costs the server files, and two for sharing the lanes")
	require.Len(t, exchanges, 18, "two for each topic, and for that of the dead letters of each group")
}

func TestAShopThatCannotOpenLeavesNothingBehind(t *testing.T) {
	for name, server := range servers {
		t.Run(name, func(t *testing.T) {
			cfg := settings{data: t.TempDir(), temporary: true, addr: "256.0.0.1:80", broker: server.address(t)}
			prefix := (&shop{cfg: cfg}).prefix()
			t.Cleanup(func() { _ = server.remove(context.Background(), cfg.broker, prefix) })
			_, err := openShop(t.Context(), cfg, nil, io.Discard)
			require.ErrorContains(t, err, "-addr")
			require.Empty(t, server.left(t, prefix))
		})
	}
}

func TestTheAddressOfABrokerIsPrintedWithoutSecrets(t *testing.T) {
	for address, printed := range map[string]string{
		"nats://127.0.0.1:4222":                            "nats://127.0.0.1:4222",
		"nats://secret@host:4222":                          "nats://host:4222",
		"amqp://user:secret@host:5672/vhost?auth=secret":   "amqp://host:5672",
		"amqp://user:secret@one/,amqp://user:secret@two/":  "amqp://one",
		"redis://user:secret@host:6379/0?password=secret":  "redis://host:6379",
		"redis://user:sec%zzret@host:6379":                 "redis://…",
		"amqp://user:secret@one:1,amqp://user:secret@tw:2": "amqp://one:1",
	} {
		require.Equal(t, printed, withoutPassword(address))
	}
}

func TestWrongBrokersAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"unknown":          {[]string{"-broker", "ftp://x"}, `begins with "ftp"`},
		"empty":            {[]string{"-broker", ""}, `begins with ""`},
		"memory with data": {[]string{"-broker", "mem:", "-data", t.TempDir()}, "leave out -data"},
		"NATS away":        {[]string{"-broker", "nats://user:secret@127.0.0.1:1"}, "start the broker"},
		"RabbitMQ away":    {[]string{"-broker", "amqp://user:secret@127.0.0.1:1"}, "start the broker"},
		"Redis away":       {[]string{"-broker", "redis://user:secret@127.0.0.1:1"}, "start the broker"},
		"no NATS URL":      {[]string{"-broker", "nats://user:secret%zz@127.0.0.1:1"}, "-broker nats://…"},
		"no RabbitMQ URL":  {[]string{"-broker", "amqp://user:secret%zz@127.0.0.1:1"}, "-broker amqp://…"},
		"no Redis URL":     {[]string{"-broker", "redis://user:secret%zz@127.0.0.1:1"}, "-broker redis://…"},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			require.Equal(t, 2, run(t.Context(), c.args, &stdout, &stderr))
			require.Contains(t, stderr.String(), c.says)
			require.NotContains(t, stderr.String(), "secret")
		})
	}
}
