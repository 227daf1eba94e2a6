package hedge

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestABucketIsAtMostAnEighthWide(t *testing.T) {
	for _, d := range []time.Duration{-1, 0, 1, 7, 8, 9, 15, 16, 17, 1000, 123_456, time.Second, time.Hour, math.MaxInt64} {
		bucket := bucketOf(d)
		require.Less(t, bucket, buckets)
		edge := upperEdge(bucket)
		require.GreaterOrEqual(t, edge, d)
		require.LessOrEqual(t, float64(edge), 1.125*float64(max(0, d)))
	}
	for bucket := range buckets {
		require.Equal(t, bucket, bucketOf(upperEdge(bucket)))
		if bucket > 0 {
			require.Equal(t, bucket, bucketOf(upperEdge(bucket-1)+1), "no gap")
		}
	}
}
