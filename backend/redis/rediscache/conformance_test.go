package rediscache_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/redis/internal/redistest"
	"github.com/backstay-go/backstay/backend/redis/rediscache"
	"github.com/backstay-go/backstay/cache"
	"github.com/backstay-go/backstay/cache/cachetest"
)

type store = cache.Store[string, string]

func TestConformance(t *testing.T) {
	prefixes := map[store]string{}
	cachetest.Run(t, cachetest.Harness{
		New: func(t *testing.T) store {
			client, prefix := shared(t)
			s := open(t, client, rediscache.Config{Prefix: prefix})
			prefixes[s] = prefix
			return s
		},
		Second: func(t *testing.T, first store) store {
			return open(t, dial(t, redistest.SharedURL(t)), rediscache.Config{Prefix: prefixes[first]})
		},
		TTL:  500 * time.Millisecond,
		Wait: wait,
	})
}

// wait lets real time pass, which the server's clock needs.
func wait(d time.Duration) { <-time.After(d) }

func TestConformanceOnACluster(t *testing.T) {
	nodes := redistest.StartCluster(t)
	prefixes := map[store]string{}
	cachetest.Run(t, cachetest.Harness{
		New: func(t *testing.T) store {
			prefix := redistest.Prefix(t)
			s := open(t, dial(t, "redis://"+nodes[0].Addr), rediscache.Config{Prefix: prefix})
			prefixes[s] = prefix
			return s
		},
		Second: func(t *testing.T, first store) store {
			return open(t, dial(t, "redis://"+nodes[1].Addr), rediscache.Config{Prefix: prefixes[first]})
		},
		TTL:  500 * time.Millisecond,
		Wait: wait,
	})
	for _, node := range nodes {
		require.NotEqual(t, ":0", node.Do(t, "DBSIZE"), "a node holds no key, so that the suite has not met several nodes")
	}
}
