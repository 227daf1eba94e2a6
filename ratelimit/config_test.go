package ratelimit_test

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/ratelimit"
)

func TestConfig(t *testing.T) {
	err := ratelimit.Config{Name: "geocoder", Rate: math.NaN(), Burst: -1}.Validate()
	require.ErrorContains(t, err, `ratelimit "geocoder": Config.Rate is NaN`)
	require.ErrorContains(t, err, `Config.Burst is -1`)
	require.ErrorContains(t, ratelimit.Config{Rate: math.Inf(1)}.Validate(), "Config.Rate is +Inf")
	require.ErrorContains(t, ratelimit.Config{Rate: 1e-9}.Validate(), "Config.Burst is 1: it must be at most what Rate lets through in a year")
	require.NoError(t, ratelimit.Config{Rate: math.Inf(-1), Burst: 1e9}.Validate())
	require.Panics(t, func() { ratelimit.New(ratelimit.Config{Burst: -1}) })

	for given, want := range map[ratelimit.Config]ratelimit.Config{
		{}:                                {Name: "ratelimit", Rate: 100, Burst: 100},
		{Rate: 2.5}:                       {Name: "ratelimit", Rate: 2.5, Burst: 3},
		{Rate: 0.1, MaxWait: -5}:          {Name: "ratelimit", Rate: 0.1, Burst: 1, MaxWait: -1},
		{Name: "x", Rate: -3, MaxWait: 1}: {Name: "x", Rate: -1, Burst: 1, MaxWait: 1},
	} {
		l := ratelimit.New(given)
		require.Equal(t, want, l.Config())
		require.NoError(t, l.Reconfigure(l.Config()))
		require.Equal(t, want, l.Config())
	}
}

func TestConfigAsJSON(t *testing.T) {
	var c ratelimit.Config
	require.NoError(t, json.Unmarshal([]byte(`{"rate":0.5,"burst":3,"max_wait":"off"}`), &c))
	require.Equal(t, ratelimit.Config{Rate: 0.5, Burst: 3, MaxWait: -1}, c)
	require.Error(t, json.Unmarshal([]byte(`{"rat":1}`), &c))
	var set ratelimit.SetConfig
	text := `{"name":"tenants","each":{"rate":0.5,"max_wait":"1s"},"max_keys":7,"idle":"10m0s"}`
	require.NoError(t, json.Unmarshal([]byte(text), &set))
	require.Equal(t, ratelimit.SetConfig{Name: "tenants", Each: ratelimit.Config{Rate: 0.5, MaxWait: time.Second}, MaxKeys: 7, Idle: 10 * time.Minute}, set)
	out, err := json.Marshal(set)
	require.NoError(t, err)
	require.JSONEq(t, text, string(out))
}

func FuzzConfigJSON(f *testing.F) {
	f.Add([]byte(`{"name":"a","rate":0.25,"burst":3,"max_wait":"1s"}`))
	f.Add([]byte(`{"rate":"off","max_wait":"off"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var first, second ratelimit.Config
		if json.Unmarshal(data, &first) != nil || first.Validate() != nil {
			return
		}
		inForce := ratelimit.New(first).Config()
		out, err := json.Marshal(inForce)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(out, &second), "%s", out)
		require.NoError(t, second.Validate())
		require.Equal(t, inForce, ratelimit.New(second).Config())
	})
}
