package policyhttp

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func FuzzRetryAfter(f *testing.F) {
	const date = "Fri, 20 Nov 2026 12:00:00 GMT"
	for _, c := range []struct {
		value string
		want  time.Duration
	}{
		{"120", 2 * time.Minute}, {"0", 0}, {"", 0}, {"-1", 0}, {"1.5", 0}, {"soon", 0},
		{"99999999999999999999999", 1<<63 - 1 - 854775807},
		{"Fri, 20 Nov 2026 12:01:00 GMT", time.Minute}, {"Fri, 20 Nov 2026 11:59:00 GMT", 0},
		{"Friday, 20-Nov-26 12:01:00 GMT", time.Minute},
	} {
		require.Equal(f, c.want, retryAfter(http.Header{"Retry-After": {c.value}, "Date": {date}}), c.value)
		f.Add(c.value, date)
	}
	f.Fuzz(func(t *testing.T, value, date string) {
		require.GreaterOrEqual(t, retryAfter(http.Header{"Retry-After": {value}, "Date": {date}}), time.Duration(0))
	})
}
