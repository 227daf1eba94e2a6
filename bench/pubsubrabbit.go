package bench

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/backstay-go/backstay/backend/rabbitmq/rabbitpubsub"
	"github.com/backstay-go/backstay/pubsub"
)

const (
	rabbitLanes  = 4
	rabbitWindow = 1000 // messages in flight, unconfirmed or unacknowledged, as by default in our driver
	rabbitAcks   = 64   // messages that one acknowledgement of the client settles
)

func rabbitURL() string {
	if url := os.Getenv("BACKSTAY_RABBITMQ_URL"); url != "" {
		return url
	}
	return "amqp://guest:guest@127.0.0.1:5672"
}

// rabbitThere says why there is no server, once for all cases.
var rabbitThere = sync.OnceValue(func() error {
	conn, err := amqp.Dial(rabbitURL())
	if err != nil {
		return fmt.Errorf("no RabbitMQ server: start one with 'rabbitmq-server -detached', or set BACKSTAY_RABBITMQ_URL: %w", err)
	}
	return conn.Close()
})

// rawRabbit is amqp091-go with the exchange and queue of our driver.
type rawRabbit struct {
	conn   *amqp.Connection
	prefix string
	// sent is for publishing; it is opened once, since the broker confirms by the channel.
	sent     *amqp.Channel
	confirms chan amqp.Confirmation
}

// openRabbitMQ works on the server that others use, under a prefix of its own. The group stands, since the broker drops what
// has none.
func openRabbitMQ(b *testing.B, ordered bool) *counter {
	conn, err := amqp.Dial(rabbitURL())
	must(b, err)
	b.Cleanup(func() { check(b, conn.Close()) })
	r := &rawRabbit{conn: conn, prefix: ownPrefix()}
	b.Cleanup(func() { check(b, r.remove()) })
	driver, err := rabbitpubsub.Open(context.Background(), rabbitURL(), rabbitpubsub.Config{
		Prefix: r.prefix, Lanes: rabbitLanes, Window: rabbitWindow, Prefetch: rabbitWindow, PublishTimeout: 2 * time.Minute})
	must(b, err)
	c := newCounter(b, driver, "end")
	group, err := c.bus.Open(context.Background(), pubsub.Subscription{Topic: brokerTopic, Group: natsGroup, Ordered: ordered})
	must(b, err)
	must(b, group.Close())
	c.publish, c.consume, c.depth = r.publish, r.consume, rabbitWindow/rabbitLanes
	return c
}

// remove deletes what a group makes, whether it is ordered or not. To delete what is not there is no error.
func (r *rawRabbit) remove() error {
	channel, err := r.conn.Channel()
	if err != nil {
		return err
	}
	dead := pubsub.DeadLetterTopic(brokerTopic, natsGroup)
	queues := []string{r.queue(), r.queue() + "::members", r.queue() + "::wanting", r.prefix + ":" + dead + "::kept"}
	for lane := 1; lane < rabbitLanes; lane++ {
		queues = append(queues, r.queue()+":"+strconv.Itoa(lane))
	}
	for _, queue := range queues {
		if _, err := channel.QueueDelete(queue, false, false, false); err != nil {
			return err
		}
	}
	for _, topic := range []string{brokerTopic, dead} {
		for _, end := range []string{"", "::unrouted:" + strconv.Itoa(rabbitLanes)} {
			if err := channel.ExchangeDelete(r.prefix+":"+topic+end, false, false); err != nil {
				return err
			}
		}
	}
	return channel.Close()
}

func (r *rawRabbit) queue() string { return r.prefix + ":" + brokerTopic + ":" + natsGroup }

// publish sends the headers that our driver sends, with as many messages unconfirmed, and has returns reported.
func (r *rawRabbit) publish(b *testing.B, msgs []pubsub.Message) {
	if r.sent == nil {
		channel, err := r.conn.Channel()
		must(b, err)
		must(b, channel.Confirm(false))
		r.sent, r.confirms = channel, channel.NotifyPublish(make(chan amqp.Confirmation, rabbitWindow))
	}
	unconfirmed := 0
	confirm := func() {
		if c := <-r.confirms; !c.Ack {
			b.Fatal("the broker has not accepted a message")
		}
		unconfirmed--
	}
	for i := range msgs {
		if unconfirmed == rabbitWindow {
			confirm()
		}
		must(b, r.send(&msgs[i], strconv.Itoa(i%rabbitLanes)))
		unconfirmed++
	}
	for unconfirmed > 0 {
		confirm()
	}
}

func (r *rawRabbit) send(m *pubsub.Message, lane string) error {
	return r.sent.PublishWithContext(context.Background(), r.prefix+":"+brokerTopic, lane, true, false, amqp.Publishing{
		DeliveryMode: amqp.Persistent, MessageId: m.ID, Body: m.Payload, Headers: amqp.Table{
			"cloudEvents_specversion": "1.0", "cloudEvents_id": m.ID, "cloudEvents_source": "/bench", "cloudEvents_type": m.Topic,
			"cloudEvents_partitionkey": m.Key, "cloudEvents_time": m.Time.UTC().Format(time.RFC3339Nano),
		}})
}

// consume closes its channel in the end, which the broker answers when it has read the last acknowledgement.
func (r *rawRabbit) consume(b *testing.B, n int) {
	channel, err := r.conn.Channel()
	must(b, err)
	must(b, channel.Qos(rabbitWindow, 0, false))
	deliveries, err := channel.Consume(r.queue(), "raw", false, false, false, false, nil)
	must(b, err)
	for i := 1; i <= n; i++ {
		d, ok := <-deliveries
		if !ok {
			b.Fatal("the channel was closed")
		}
		if i%rabbitAcks == 0 || i == n {
			must(b, d.Ack(true))
		}
	}
	must(b, channel.Close())
}
