package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/backstay-go/backstay/backend/nats/natsembed"
	"github.com/backstay-go/backstay/backend/nats/natspubsub"
	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/pubsub/mempubsub"
)

// broker is how the services reach each other with events.
type broker struct {
	driver pubsub.Driver
	close  func() error                // what was opened for the driver; nil: nothing
	remove func(context.Context) error // the shop's own things at a server that others use as well; nil: there are none
}

// brokers are the forms of -broker. Nothing in the services depends on which it is.
var brokers = []struct {
	schemes []string
	open    func(ctx context.Context, s *shop, address string) (broker, error)
}{
	{[]string{"mem"}, openMemory},
	{[]string{"nats", "tls"}, openNATS},
	{[]string{"amqp", "amqps"}, openRabbitMQ},
	{[]string{"redis", "rediss"}, openRedis},
}

// brokerPatience is how long a broker may take to answer when the shop opens.
const brokerPatience = 20 * time.Second

// checkBroker refuses what no run could use.
func checkBroker(address, data string) error {
	scheme, _, _ := strings.Cut(address, ":")
	if scheme == "mem" && data != "" {
		return errors.New("-broker mem: forgets the events under way when the shop ends: leave out -data, or take a broker that keeps them")
	}
	known := []string{"mem:"}
	for _, b := range brokers {
		if slices.Contains(b.schemes, scheme) {
			return nil
		}
		if b.schemes[0] != "mem" {
			known = append(known, b.schemes[0]+"://host:port")
		}
	}
	return fmt.Errorf("-broker begins with %q: it must be one of %s; without it the shop runs JetStream inside itself", scheme, strings.Join(known, ", "))
}

// eventPrefix keeps apart what shops have at a broker.
func (s *shop) eventPrefix() string { return cmp.Or(s.cfg.events, s.prefix()) }

// startBroker opens the broker that the caller asked for, or starts JetStream inside this process, with no port open.
func (s *shop) startBroker(ctx context.Context) error {
	opening, cancel := context.WithTimeout(ctx, brokerPatience)
	defer cancel()
	b, err := s.openBroker(opening)
	if err != nil {
		if s.cfg.broker != "" {
			err = usageError{fmt.Errorf("-broker %s: %w", withoutPassword(s.cfg.broker), advised(err))}
		}
		return err
	}
	if b.close != nil {
		s.onClose(b.close)
	}
	s.bus = pubsub.New(b.driver)
	if s.cfg.events == "" { // else they are at a broker of the shop's own, in the data folder
		s.removeEvents = b.remove
	}
	s.onClose(s.bus.Close)
	return nil
}

func (s *shop) openBroker(ctx context.Context) (broker, error) {
	open := openEmbedded
	scheme, _, _ := strings.Cut(s.cfg.broker, ":")
	for _, b := range brokers {
		if slices.Contains(b.schemes, scheme) {
			open = b.open
		}
	}
	return open(ctx, s, s.cfg.broker)
}

// prefix keeps shops apart that share a server. It follows from the data folder, so that a shop finds its events again.
func (s *shop) prefix() string {
	sum := fnv.New64a()
	path, err := filepath.Abs(s.cfg.data)
	if err != nil {
		path = s.cfg.data
	}
	_, _ = sum.Write([]byte(path))
	return fmt.Sprintf("shop-%x", sum.Sum64())
}

// withoutPassword is the address as it may be printed: where the broker is, and nothing of what may be a secret, such as a
// user that is a token, or an option.
func withoutPassword(address string) string {
	scheme, _, _ := strings.Cut(address, ":")
	u, err := url.Parse(address)
	if err != nil {
		return scheme + "://…"
	}
	first, _, _ := strings.Cut(u.Host, ",")
	return scheme + "://" + first
}

// advised is an error with what to do about it. One that quotes the address, and with it a password, is replaced.
func advised(err error) error {
	if _, quotes := errors.AsType[*url.Error](err); quotes {
		return errors.New("this is no URL: write scheme://user:password@host:port, or leave out -broker")
	}
	return fmt.Errorf("%w: start the broker, or leave out -broker", err)
}

// embeddedPrefix is that of a broker which belongs to the shop.
const embeddedPrefix = "shop"

func openEmbedded(ctx context.Context, s *shop, _ string) (b broker, err error) {
	server, err := natsembed.Start(natsembed.Config{Dir: filepath.Join(s.cfg.data, "jetstream")})
	if err != nil {
		return b, err
	}
	conn, err := server.Connect()
	if err != nil {
		return b, errors.Join(err, server.Close())
	}
	b.close = func() error {
		conn.Close()
		return server.Close()
	}
	if b.driver, err = natspubsub.New(ctx, conn, natspubsub.Config{Prefix: embeddedPrefix}); err != nil {
		err = errors.Join(err, b.close())
	}
	return b, err
}

func openMemory(context.Context, *shop, string) (broker, error) {
	return broker{driver: mempubsub.New(mempubsub.Config{})}, nil
}
