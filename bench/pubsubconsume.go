package bench

import (
	"context"
	"testing"

	"github.com/ThreeDotsLabs/watermill"
	wmjetstream "github.com/ThreeDotsLabs/watermill-nats/v2/pkg/jetstream"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/backstay-go/backstay/pubsub"
)

// fill puts in the messages that a consumer is to read.
func (s *station) fill(b *testing.B) {
	for i := 0; i < b.N; i += natsCall {
		must(b, s.bus.Publish(context.Background(), s.messages(i, min(natsCall, b.N-i))...))
	}
}

// awaitSettled returns when the server has an acknowledgement for every message from all consumers of the stream.
func (s *station) awaitSettled(b *testing.B) {
	for {
		unsettled := uint64(0)
		consumers := s.stream.ListConsumers(context.Background())
		for info := range consumers.Info() {
			unsettled += info.NumPending + uint64(info.NumAckPending)
		}
		must(b, consumers.Err())
		if unsettled == 0 {
			return
		}
	}
}

func (s *station) durable(ctx context.Context) (jetstream.Consumer, error) {
	return s.stream.CreateConsumer(ctx, jetstream.ConsumerConfig{Durable: natsGroup, AckPolicy: jetstream.AckExplicitPolicy})
}

func rawConsume(b *testing.B, s *station) pass {
	s.fill(b)
	consumer, err := s.durable(context.Background())
	must(b, err)
	return func(n int) {
		count := newCountdown(n)
		running, err := consumer.Consume(func(m jetstream.Msg) {
			if err := m.Ack(); err != nil {
				b.Error(err)
			}
			count.acked()
		})
		must(b, err)
		<-count.done
		s.awaitSettled(b)
		b.StopTimer()
		running.Stop()
		<-running.Closed()
	}
}

func oursConsume(ordered bool) func(*testing.B, *station) pass {
	return func(b *testing.B, s *station) pass {
		s.fill(b)
		count := newCountdown(b.N)
		ctx, cancel := context.WithCancel(context.Background())
		b.Cleanup(cancel)
		consumer, err := s.bus.Open(ctx, pubsub.Subscription{Topic: natsTopic, Group: natsGroup, Ordered: ordered, Start: "start"})
		must(b, err)
		return func(int) {
			ended := make(chan error, 1)
			go func() {
				ended <- consumer.Run(ctx, func(context.Context, pubsub.Message) error {
					count.acked()
					return nil
				})
			}()
			<-count.done
			if ordered { // the server has all acknowledgements when Run returns
				cancel()
				check(b, <-ended)
			}
			s.awaitSettled(b)
			b.StopTimer()
			if !ordered {
				cancel()
				check(b, <-ended)
			}
		}
	}
}

// watermillConsume reads the same stream through a consumer with the settings that the raw one has.
func watermillConsume(async bool) func(*testing.B, *station) pass {
	return func(b *testing.B, s *station) pass {
		s.fill(b)
		subscriber, err := wmjetstream.NewSubscriber(wmjetstream.SubscriberConfig{
			Conn: s.conn, Logger: watermill.NopLogger{}, AckAsync: async,
			ResourceInitializer: func(ctx context.Context, _ jetstream.JetStream, _ string) (jetstream.Consumer, func(context.Context, watermill.LoggerAdapter), error) {
				consumer, err := s.durable(ctx)
				return consumer, nil, err
			},
		})
		must(b, err)
		return func(n int) {
			messages, err := subscriber.Subscribe(context.Background(), natsTopic)
			must(b, err)
			for range n {
				(<-messages).Ack()
			}
			s.awaitSettled(b)
			b.StopTimer()
			check(b, subscriber.Close())
		}
	}
}

// watermillPublish sends to a stream of its own, since watermill gives a topic, its stream and its subject one name; all else is as
// in the other subjects' stream, the headers too.
func watermillPublish(b *testing.B, s *station) pass {
	info, err := s.stream.Info(context.Background())
	must(b, err)
	cfg := info.Config
	cfg.Name, cfg.Subjects = "watermill", []string{"watermill"}
	_, err = s.js.CreateStream(context.Background(), cfg)
	must(b, err)
	publisher, err := wmjetstream.NewPublisher(wmjetstream.PublisherConfig{
		Conn: s.conn, Logger: watermill.NopLogger{},
		ConfigureStream: func(string) jetstream.StreamConfig { return cfg },
	})
	must(b, err)
	return func(n int) {
		for i := range n {
			raw := s.raw(i)
			m := message.NewMessage(raw.Header.Get("ce-id"), raw.Data)
			for name, values := range raw.Header {
				m.Metadata[name] = values[0]
			}
			check(b, publisher.Publish("watermill", m))
		}
	}
}
