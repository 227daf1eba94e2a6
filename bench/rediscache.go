package bench

import (
	"context"

	"github.com/redis/rueidis"

	"github.com/backstay-go/backstay/backend/redis/rediscache"
	"github.com/backstay-go/backstay/cache"
)

const (
	oursStore  = ours + ", rediscache"
	oursRedis  = ours + ", cache over rediscache"
	oursTiered = ours + ", two levels"
)

func redisOurs() []redisReader {
	return []redisReader{{oursStore, openStore}, {oursRedis, openCache(cache.WithStore[string, string])}}
}

// redisOursCached is the memory of two levels, which notices from Redis keep true as they do rueidis's own.
func redisOursCached() []redisReader {
	return []redisReader{{oursTiered, openCache(cache.WithL2[string, string])}}
}

func redisTargets() []Target {
	return []Target{
		{redisCachedCase, oursTiered, Floor, 1.3, false, 0, 0},
		{redisCachedCase + sixtyFour, oursTiered, Floor, 1.3, false, 0, 0},
	}
}

// newStore makes a Store whose key has the value.
func newStore(url, key string) (store *rediscache.Store[string, string], end func(), err error) {
	options, err := rediscache.ClientOption(url)
	if err != nil {
		return nil, nil, err
	}
	client, err := rueidis.NewClient(options)
	if err != nil {
		return nil, nil, err
	}
	ctx := context.Background()
	store, err = rediscache.New[string, string](client, rediscache.Config{Prefix: "backstay-bench"})
	if err != nil {
		client.Close()
		return nil, nil, err
	}
	end = func() {
		_ = store.Delete(ctx, key)
		client.Close()
	}
	if err := store.Set(ctx, key, cache.Entry[string]{Value: redisValue, TTL: entryTTL}); err != nil {
		end()
		return nil, nil, err
	}
	return store, end, nil
}

func openStore(url, key string) (func() (redisRead, error), func(), error) {
	store, end, err := newStore(url, key)
	if err != nil {
		return nil, nil, err
	}
	return shared(func(ctx context.Context) error {
		_, found, err := store.Get(ctx, key)
		if !found && err == nil {
			return errMissed
		}
		return err
	}), end, nil
}

func openCache(over func(cache.Store[string, string]) cache.Option) redisOpen {
	return func(url, key string) (func() (redisRead, error), func(), error) {
		store, end, err := newStore(url, key)
		if err != nil {
			return nil, nil, err
		}
		c := cache.New(func(context.Context, string) (string, error) { return "", errMissed },
			cache.Config{TTL: entryTTL, TTLJitter: -1, LocalTTL: entryTTL}, over(store))
		read := func(ctx context.Context) error {
			_, err := c.Get(ctx, key)
			return err
		}
		return shared(read), func() { _ = c.Close(); end() }, nil
	}
}
