package goredis

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/backstay-go/backstay/backend/redis/rediscache"
)

// New returns a Store on client, a *redis.Client (also one for sentinels) or a *redis.ClusterClient, which the caller
// closes after the last use of the Store. It sends nothing. It fails when cfg is invalid, when keys
// of type K need rediscache.WithKey, when the client's options do not have ContextTimeoutEnabled, without which
// go-redis ignores deadlines, and when they have client-side caching, with which an entry would seem as young as the
// one that has replaced it.
func New[K comparable, V any](
	client redis.UniversalClient, cfg rediscache.Config, opts ...rediscache.Option,
) (*rediscache.Store[K, V], error) {
	if err := check(client); err != nil {
		return nil, fmt.Errorf("goredis: New: %w", err)
	}
	return rediscache.NewWithConn[K, V](conn{client}, cfg, opts...)
}

func check(client redis.UniversalClient) error {
	var obeysDeadlines, caches bool
	switch c := client.(type) {
	case *redis.Client:
		opt := c.Options()
		obeysDeadlines = opt.ContextTimeoutEnabled
		caches = opt.ClientSideCache != nil || opt.ClientSideCacheConfig != nil
	case *redis.ClusterClient:
		obeysDeadlines = c.Options().ContextTimeoutEnabled
	default:
		// On a Ring, a lease would not be seen by those who think that another shard is up.
		return fmt.Errorf("the client is a %T: it must be a *redis.Client or a *redis.ClusterClient", client)
	}
	switch {
	case !obeysDeadlines:
		return errors.New("the client ignores deadlines: set ContextTimeoutEnabled in its options")
	case caches:
		return errors.New("the client caches: make one without ClientSideCache and ClientSideCacheConfig")
	}
	return nil
}

// conn is a rediscache.Conn on a go-redis client.
type conn struct{ client redis.UniversalClient }

func (c conn) Get(ctx context.Context, key string) ([]byte, time.Duration, error) {
	pipe := c.client.Pipeline()
	pttl := pipe.PTTL(ctx, key)
	get := pipe.Get(ctx, key)
	_, _ = pipe.Exec(ctx) // each command has its own error
	value, err := get.Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, answered(err)
	}
	left, err := pttl.Result()
	if left == -2 { // it has come between the two commands
		left = 1 << 62
	}
	return value, left, answered(err)
}

func answered(err error) error {
	if answer, ok := errors.AsType[redis.Error](err); ok {
		return rediscache.ServerError(answer.Error())
	}
	return err
}

func (c conn) Eval(
	ctx context.Context, command, script string, keys [2]string, args ...string,
) (rediscache.Reply, error) {
	words := make([]any, 0, 5+len(args))
	words = append(words, command, script, 2, keys[0], keys[1])
	for _, arg := range args {
		words = append(words, arg)
	}
	answer, err := c.client.Do(ctx, words...).Result()
	if err != nil {
		return rediscache.Reply{}, answered(err)
	}
	switch answer := answer.(type) {
	case int64:
		return rediscache.Reply{Number: answer}, nil
	case []any:
		if len(answer) == 2 {
			n, isNumber := answer[0].(int64)
			value, isString := answer[1].(string)
			if isNumber && isString {
				return rediscache.Reply{Number: n, Value: []byte(value)}, nil
			}
		}
	}
	return rediscache.Reply{}, fmt.Errorf("a script answered with %T", answer)
}

func (c conn) Ping(ctx context.Context) error { return answered(c.client.Ping(ctx).Err()) }
