package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/rueidis"
)

const (
	redisCase       = "Redis, read of 32 bytes"
	redisCachedCase = "Redis, read of 32 bytes that the client has cached"
	sixtyFour       = ", 64 goroutines"
	rueidisName     = "rueidis 1.0.79"
	rueidisPrefixed = rueidisName + ", name of the key put together for each read"
	goRedisName     = "go-redis 9.23.0"
	redisValue      = "0123456789abcdef0123456789abcdef"
)

var errMissed = errors.New("the key is not there")

// redisRead reads a key once.
type redisRead = func(ctx context.Context) error

// redisReader reads one key of a Redis server.
type redisReader struct {
	name string
	open redisOpen
}

// redisOpen puts the value under the key and returns what makes a reader for each goroutine; end removes it.
type redisOpen = func(url, key string) (reader func() (redisRead, error), end func(), err error)

func redisReads(l *list) {
	uncached := append([]redisReader{{Floor, openRaw}, {rueidisName, openRueidis}, {goRedisName, openGoRedis}}, redisOurs()...)
	cached := append([]redisReader{{Floor, openRueidisCached("")}, {rueidisPrefixed, openRueidisCached("backstay-bench:v:")}}, redisOursCached()...)
	l.redis(redisCase, uncached)
	l.redis(redisCachedCase, cached)
}

func (l *list) redis(name string, readers []redisReader) {
	for _, suffix := range []string{"", sixtyFour} {
		for _, r := range readers {
			goroutines := 1
			if suffix != "" {
				goroutines = 64
			}
			l.cases = append(l.cases, Case{l.area, name + suffix, r.name, redisLoop(r, goroutines), redisThere})
		}
	}
}

func redisURL() string {
	if url := os.Getenv("BACKSTAY_REDIS_URL"); url != "" {
		return url
	}
	return "redis://127.0.0.1:6379"
}

func redisAddress() string {
	host, _, _ := strings.Cut(redisURL()[strings.LastIndexAny(redisURL(), "/@")+1:], "/")
	return host
}

// redisThere says why there is no server, once for all cases.
var redisThere = sync.OnceValue(func() error {
	conn, err := (&net.Dialer{Timeout: 2 * time.Second}).DialContext(context.Background(), "tcp", redisAddress())
	if err != nil {
		return fmt.Errorf("no Redis server at %s: start one with 'redis-server', or set BACKSTAY_REDIS_URL: %w", redisURL(), err)
	}
	return conn.Close()
})

func redisLoop(r redisReader, goroutines int) func(*testing.B) {
	return func(b *testing.B) {
		key := fmt.Sprintf("backstay-bench-%d:key", os.Getpid())
		reader, end, err := r.open(redisURL(), key)
		if err != nil {
			b.Fatal(err)
		}
		defer end()
		ctx := context.Background()
		b.ReportAllocs()
		b.SetParallelism((goroutines + runtime.GOMAXPROCS(0) - 1) / runtime.GOMAXPROCS(0))
		if goroutines == 1 {
			read, err := reader()
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				check(b, read(ctx))
			}
			return
		}
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			read, err := reader()
			check(b, err)
			for err == nil && pb.Next() {
				check(b, read(ctx))
			}
		})
	}
}

func check(b *testing.B, err error) {
	if err != nil {
		b.Error(err)
	}
}

// shared is a reader that all goroutines use.
func shared(read redisRead) func() (redisRead, error) {
	return func() (redisRead, error) { return read, nil }
}

// openRaw sends one request at a time on a connection for each goroutine, without any client.
func openRaw(url, key string) (func() (redisRead, error), func(), error) {
	put, end, err := openRueidis(url, key)
	if err != nil {
		return nil, nil, err
	}
	if _, err := put(); err != nil {
		return nil, nil, err
	}
	var mu sync.Mutex
	var open []net.Conn
	dial := func() (redisRead, error) {
		conn, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", redisAddress())
		if err != nil {
			return nil, err
		}
		mu.Lock()
		open = append(open, conn)
		mu.Unlock()
		return rawGet(conn, key), nil
	}
	return dial, func() {
		end()
		for _, conn := range open {
			_ = conn.Close()
		}
	}, nil
}

func rawGet(conn net.Conn, key string) redisRead {
	request := fmt.Appendf(nil, "*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n", len(key), key)
	in := bufio.NewReader(conn)
	value := make([]byte, len(redisValue)+2)
	expected := fmt.Sprintf("$%d\r\n", len(redisValue))
	return func(context.Context) error {
		if _, err := conn.Write(request); err != nil {
			return err
		}
		head, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		if string(head) != expected {
			return errMissed
		}
		_, err = io.ReadFull(in, value)
		return err
	}
}

// newRueidis connects and puts the value under the key; end removes it.
func newRueidis(url, key string) (client rueidis.Client, end func(), err error) {
	options, err := rueidis.ParseURL(url)
	if err != nil {
		return nil, nil, err
	}
	client, err = rueidis.NewClient(options)
	if err != nil {
		return nil, nil, err
	}
	ctx := context.Background()
	end = func() {
		_ = client.Do(ctx, client.B().Del().Key(key).Build()).Error()
		client.Close()
	}
	if err := client.Do(ctx, client.B().Set().Key(key).Value(redisValue).Build()).Error(); err != nil {
		end()
		return nil, nil, err
	}
	return client, end, nil
}

func openRueidis(url, key string) (func() (redisRead, error), func(), error) {
	client, end, err := newRueidis(url, key)
	if err != nil {
		return nil, nil, err
	}
	return shared(func(ctx context.Context) error {
		_, err := client.Do(ctx, client.B().Get().Key(key).Build()).ToString()
		return err
	}), end, nil
}

// openRueidisCached reads the key under its name, or under one that is put together as a library does for whom it is a part.
func openRueidisCached(prefix string) redisOpen {
	return func(url, key string) (func() (redisRead, error), func(), error) {
		name := func() string { return key }
		if prefix != "" {
			name = func() string { return prefix + "{" + key + "}" }
		}
		client, end, err := newRueidis(url, name())
		if err != nil {
			return nil, nil, err
		}
		return shared(func(ctx context.Context) error {
			_, err := client.DoCache(ctx, client.B().Get().Key(name()).Cache(), time.Hour).ToString()
			return err
		}), end, nil
	}
}

// openGoRedis has a connection for each goroutine at hand.
func openGoRedis(url, key string) (func() (redisRead, error), func(), error) {
	_, end, err := newRueidis(url, key)
	if err != nil {
		return nil, nil, err
	}
	options, err := redis.ParseURL(url)
	if err != nil {
		end()
		return nil, nil, err
	}
	options.PoolSize = 64
	client := redis.NewClient(options)
	return shared(func(ctx context.Context) error { return client.Get(ctx, key).Err() }),
		func() { _ = client.Close(); end() }, nil
}
