package goredis

import (
	"context"
	"errors"
	"net"
	"sync"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/backstay-go/backstay/backend/redis/internal/watch"
)

func (c conn) Watch(ctx context.Context, prefix string, changed func(key string), lost func()) error {
	return watch.Run(ctx, func(ctx context.Context) map[string]watch.Listener { return c.servers(ctx, prefix) }, changed, lost)
}

// servers has a listener for each server that the client knows.
func (c conn) servers(ctx context.Context, prefix string) map[string]watch.Listener {
	var mu sync.Mutex
	listeners := map[string]watch.Listener{}
	add := func(_ context.Context, node *redis.Client) error {
		mu.Lock()
		defer mu.Unlock()
		opt := listening(node.Options(), prefix)
		listeners[opt.Addr] = func(ctx context.Context, n *watch.Notices) error { return listen(ctx, opt, n) }
		return nil
	}
	switch client := c.client.(type) {
	case *redis.Client:
		_ = add(ctx, client)
	case *redis.ClusterClient:
		_ = client.ForEachShard(ctx, add) // when it knows no server, it is asked again
	}
	return listeners
}

// listening are the options of a client whose one connection gets the notices. In RESP2 they come as messages of a
// channel, which go-redis delivers, whereas it keeps RESP3's to itself; a connection may direct them to itself.
func listening(node *redis.Options, prefix string) redis.Options {
	opt := *node
	opt.Protocol = 2
	opt.PoolSize, opt.MinIdleConns = 1, 0
	opt.PushNotificationProcessor = nil
	opt.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	onConnect := opt.OnConnect
	opt.OnConnect = func(ctx context.Context, cn *redis.Conn) error {
		if onConnect != nil {
			if err := onConnect(ctx, cn); err != nil {
				return err
			}
		}
		id, err := cn.ClientID(ctx).Result()
		if err != nil {
			return err
		}
		return cn.Do(ctx, "CLIENT", "TRACKING", "ON", "REDIRECT", id, "BCAST", "PREFIX", prefix).Err()
	}
	return opt
}

// listen makes a client of its own, because only a new connection can be prepared.
func listen(ctx context.Context, opt redis.Options, n *watch.Notices) error {
	client := redis.NewClient(&opt)
	defer func() { _ = client.Close() }()
	messages := client.Subscribe(ctx, "__redis__:invalidate")
	defer func() { _ = messages.Close() }()
	defer context.AfterFunc(ctx, func() { _ = messages.Close() })() // Receive does not look at cancellation
	for asked := false; ; {
		message, err := messages.ReceiveTimeout(ctx, watch.Every)
		switch {
		case err == nil:
			asked = false
		case ctx.Err() != nil:
			return ctx.Err()
		case !isTimeout(err) || asked:
			return err // also the notice of all keys, which go-redis does not know: listening anew says lost
		default:
			asked = true
			if err := messages.Ping(ctx); err != nil {
				return err
			}
		}
		switch message := message.(type) {
		case *redis.Subscription:
			n.Lost()
		case *redis.Message:
			n.Changed(message.PayloadSlice...)
		}
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}
