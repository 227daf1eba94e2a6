package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"go.uber.org/goleak"

	"github.com/backstay-go/backstay/backend/nats/natsembed"
	"github.com/backstay-go/backstay/pubsub"
)

func TestMain(m *testing.M) {
	// When there is no server, rueidis leaves a goroutine asleep for a second.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/rueidis.(*call).DelayDo.func1"))
}

// story is what every broker tells, after what it says of itself.
const story = `
anna:    open, deposit, withdraw, close
ben:     open, deposit (attempt 3), withdraw, close
cleo:    open, deposit, withdraw, close
aside:   gibberish of dora: not a change of an account
`

func TestTheStoryInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		require.NoError(t, run(t.Context(), &out, "mem:", "bstest"))
		require.Equal(t, "broker:  mem\nkept:    held in the memory of this process\nreplay:  true"+story, out.String())
	})
}

func TestTheStoryOnEveryBroker(t *testing.T) {
	for driver, prepare := range map[string]func(t *testing.T, prefix string) (address string){
		"nats": embeddedNATS, "rabbitmq": sharedRabbitMQ, "redis": sharedRedis, "kafka": fakeKafka,
	} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			prefix := fmt.Sprintf("bstest-%d-%d", os.Getpid(), time.Now().UnixNano())
			address := prepare(t, prefix)
			for range 2 { // the second time the groups are there
				var out bytes.Buffer
				require.NoError(t, run(t.Context(), &out, address, prefix), &out)
				require.Contains(t, out.String(), "broker:  "+driver+"\n")
				require.Contains(t, out.String(), story)
			}
		})
	}
}

// What an interrupted run has left behind is handled, and is no part of the story of the next.
func TestTheRemainsOfAnotherRunAreNotPartOfTheStory(t *testing.T) {
	server, err := natsembed.Start(natsembed.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	require.NoError(t, err)
	defer func() { require.NoError(t, server.Close()) }()
	tell := func(out *bytes.Buffer) { require.NoError(t, run(t.Context(), out, server.URL(), "bstest"), out) }
	tell(new(bytes.Buffer)) // the group stands
	driver, err := open(t.Context(), server.URL(), "bstest")
	require.NoError(t, err)
	bus := pubsub.New(driver)
	earlier := &book{run: "earlier"}
	require.NoError(t, bus.Publish(t.Context(), earlier.message("anna", "open"), earlier.message("ben", "deposit"), earlier.message("dora", "gibberish")))
	require.NoError(t, bus.Close())
	var out bytes.Buffer
	tell(&out)
	require.Contains(t, out.String(), story)
}

func TestWhatIsNoBrokerIsRefused(t *testing.T) {
	var out bytes.Buffer
	require.ErrorContains(t, run(t.Context(), &out, "ftp://x", "bstest"), `no broker for "ftp": it is mem:, nats://…`)
	for _, scheme := range []string{"nats", "amqp", "redis", "kafka"} {
		err := run(t.Context(), &out, scheme+"://user:secret@127.0.0.1:1", "bstest")
		require.Error(t, err)
		require.NotContains(t, err.Error(), "secret")
	}
	require.Empty(t, out.String())
}

func embeddedNATS(t *testing.T, _ string) string {
	server, err := natsembed.Start(natsembed.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Close()) })
	return server.URL()
}

func fakeKafka(t *testing.T, _ string) string {
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1))
	require.NoError(t, err)
	t.Cleanup(cluster.Close)
	return "kafka://" + strings.Join(cluster.ListenAddrs(), ",")
}

// running is the address of a server that others use as well, from the environment or the standard one.
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

func sharedRabbitMQ(t *testing.T, prefix string) string {
	address := running(t, "BACKSTAY_RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672", "start it with rabbitmq-server -detached")
	t.Cleanup(func() {
		conn, err := amqp.Dial(address)
		require.NoError(t, err)
		defer func() { require.NoError(t, conn.Close()) }()
		ch, err := conn.Channel()
		require.NoError(t, err)
		for _, queue := range []string{
			"accounts:ledger", "accounts:ledger:1", "accounts:ledger:2", "accounts:ledger:3", "accounts.dead.ledger::kept",
			"accounts:ledger::members", "accounts:ledger::wanting", "accounts.dead.ledger:clerk", "accounts.dead.ledger.dead.clerk::kept",
		} {
			_, err := ch.QueueDelete(prefix+":"+queue, false, false, false)
			require.NoError(t, err)
		}
		for _, topic := range []string{"accounts", "accounts.dead.ledger", "accounts.dead.ledger.dead.clerk"} {
			require.NoError(t, ch.ExchangeDelete(prefix+":"+topic, false, false))
			require.NoError(t, ch.ExchangeDelete(prefix+":"+topic+"::unrouted:4", false, false))
		}
	})
	return address
}

func sharedRedis(t *testing.T, prefix string) string {
	address := running(t, "BACKSTAY_REDIS_URL", "redis://127.0.0.1:6379", "start it with redis-server --daemonize yes")
	t.Cleanup(func() {
		options, err := rueidis.ParseURL(address)
		require.NoError(t, err)
		client, err := rueidis.NewClient(options)
		require.NoError(t, err)
		defer client.Close()
		ctx := context.Background()
		keys, err := client.Do(ctx, client.B().Keys().Pattern("{"+prefix+".*").Build()).AsStrSlice()
		require.NoError(t, err)
		for _, key := range keys {
			require.NoError(t, client.Do(ctx, client.B().Unlink().Key(key).Build()).Error())
		}
	})
	return address
}
