package rediscache

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/cache"
)

func TestLifetimeCoversTTLAndKeep(t *testing.T) {
	for _, c := range []struct{ ttl, keep, want time.Duration }{
		{time.Second, 0, time.Second},
		{time.Second, -1, time.Second},
		{time.Second, time.Minute, time.Minute + time.Second},
		{1, 0, time.Millisecond},
		{time.Millisecond, 1, 2 * time.Millisecond},
		{0, time.Second, eternity},
		{-1, 0, eternity},
		{math.MaxInt64, 0, eternity},
		{time.Second, math.MaxInt64, eternity},
		{eternity - time.Second, time.Minute, eternity},
	} {
		require.Equal(t, c.want, lifetime(c.ttl, c.keep), "%v", c)
	}
}

func FuzzParse(f *testing.F) {
	codec := defaultCodec[string]()
	for _, e := range []cache.Entry[string]{{}, {Value: "v", TTL: 1, Keep: 2, Cost: 3}, {Absent: true, TTL: -1}} {
		data, err := codec.append(nil, 7, e)
		require.NoError(f, err)
		f.Add(data, int64(time.Second))
	}
	f.Fuzz(func(t *testing.T, data []byte, left int64) {
		e, err := codec.parse(data, time.Duration(left))
		if err != nil {
			return
		}
		require.GreaterOrEqual(t, e.Age, time.Duration(0))
		require.LessOrEqual(t, e.Age, eternity)
		again, err := codec.append(nil, e.Version, e)
		require.NoError(t, err)
		require.Equal(t, data, again)
	})
}
