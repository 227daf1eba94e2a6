package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/redis/rueidis"

	"github.com/backstay-go/backstay/backend/nats/natspubsub"
	"github.com/backstay-go/backstay/backend/rabbitmq/rabbitpubsub"
	"github.com/backstay-go/backstay/backend/redis/redispubsub"
	"github.com/backstay-go/backstay/pubsub"
)

// Brokers that are servers of their own, which others use as well: what is made there has the shop's prefix, and is removed
// with the shop's data. A team that keeps its topics needs none of the removing.

func openNATS(ctx context.Context, s *shop, address string) (b broker, err error) {
	b.driver, err = natspubsub.Open(ctx, address, natspubsub.Config{Prefix: s.eventPrefix(), Replicas: s.cfg.replicas})
	b.remove = func(ctx context.Context) error { return removeStreams(ctx, address, s.eventPrefix()) }
	return b, err
}

func removeStreams(ctx context.Context, address, prefix string) error {
	conn, err := nats.Connect(address)
	if err != nil {
		return err
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		return err
	}
	names := js.StreamNames(ctx)
	for name := range names.Name() {
		if strings.HasPrefix(name, prefix) {
			err = errors.Join(err, js.DeleteStream(ctx, name))
		}
	}
	return errors.Join(err, names.Err())
}

// rabbitLanes is small: a lane is a queue for each group, and a quorum queue keeps files open.
const rabbitLanes = 2

func openRabbitMQ(ctx context.Context, s *shop, address string) (b broker, err error) {
	b.driver, err = rabbitpubsub.Open(ctx, address, rabbitpubsub.Config{Prefix: s.prefix(), Lanes: rabbitLanes})
	b.remove = func(ctx context.Context) error { return removeQueues(ctx, address, s.prefix()) }
	return b, err
}

// removeQueues deletes what the driver has made under the prefix. The protocol cannot list it, so it is named.
func removeQueues(_ context.Context, address, prefix string) (err error) {
	servers := strings.Split(address, ",")
	conn, err := amqp.Dial(strings.TrimSpace(servers[0]))
	for _, next := range servers[1:] {
		if err != nil {
			conn, err = amqp.Dial(strings.TrimSpace(next))
		}
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	queues, exchanges := rabbitNames(prefix)
	for _, name := range queues {
		if _, err := ch.QueueDelete(name, false, false, false); err != nil {
			return fmt.Errorf("queue %s: %w", name, err)
		}
	}
	for _, name := range exchanges {
		if err := ch.ExchangeDelete(name, false, false); err != nil {
			return fmt.Errorf("exchange %s: %w", name, err)
		}
	}
	return nil
}

// rabbitNames are those that the documentation of rabbitpubsub gives to the topology of the shop's groups.
func rabbitNames(prefix string) (queues, exchanges []string) {
	topics := map[string]bool{}
	for group, read := range readers {
		for _, topic := range read {
			dead := pubsub.DeadLetterTopic(topic, group)
			topics[topic], topics[dead] = true, true
			queue := prefix + ":" + topic + ":" + group
			queues = append(queues, prefix+":"+dead+"::kept", queue, queue+"::members", queue+"::wanting")
			for lane := 1; lane < rabbitLanes; lane++ {
				queues = append(queues, queue+":"+strconv.Itoa(lane))
			}
		}
	}
	for _, topic := range slices.Sorted(maps.Keys(topics)) {
		exchanges = append(exchanges, prefix+":"+topic, prefix+":"+topic+"::unrouted:"+strconv.Itoa(rabbitLanes))
	}
	return queues, exchanges
}

func openRedis(ctx context.Context, s *shop, address string) (b broker, err error) {
	b.driver, err = redispubsub.Open(ctx, address, redispubsub.Config{Prefix: s.prefix()})
	b.remove = func(ctx context.Context) error { return removeKeys(ctx, address, s.prefix()) }
	return b, err
}

func removeKeys(ctx context.Context, address, prefix string) error {
	options, err := redispubsub.ClientOption(address)
	if err != nil {
		return err
	}
	client, err := rueidis.NewClient(options)
	if err != nil {
		return err
	}
	defer client.Close()
	for _, node := range client.Nodes() { // of a cluster; otherwise there is one
		for cursor, more := uint64(0), true; more; more = cursor != 0 {
			page, err := node.Do(ctx, node.B().Scan().Cursor(cursor).Match("{"+prefix+".*").Count(1000).Build()).AsScanEntry()
			if err != nil {
				return err
			}
			for _, key := range page.Elements {
				if err := client.Do(ctx, client.B().Unlink().Key(key).Build()).Error(); err != nil {
					return err
				}
			}
			cursor = page.Cursor
		}
	}
	return nil
}
