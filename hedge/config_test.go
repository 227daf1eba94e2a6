package hedge_test

import (
	"encoding/json"
	"maps"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/hedge"
)

func TestConfig(t *testing.T) {
	bad := hedge.Config{Name: "stock", Quantile: 1, Budget: math.Inf(1)}
	for _, field := range []string{"Quantile is 1", "Budget is +Inf"} {
		require.ErrorContains(t, bad.Validate(), `hedge "stock": Config.`+field)
	}
	require.Error(t, hedge.Config{Quantile: math.NaN()}.Validate())
	require.Panics(t, func() { hedge.New(bad) })

	var c hedge.Config
	require.NoError(t, json.Unmarshal([]byte(`{"name":"stock","after":"20ms","quantile":0.95,"budget":"off"}`), &c))
	require.Equal(t, hedge.Config{Name: "stock", After: 20 * time.Millisecond, Quantile: 0.95, Budget: -1}, c)
	require.Error(t, json.Unmarshal([]byte(`{"before":"20ms"}`), &c))

	h := hedge.New(hedge.Config{})
	require.Equal(t, hedge.Config{Name: "hedge", After: 100 * time.Millisecond, Quantile: -1, Budget: 0.1}, h.Config())
	require.Error(t, h.Reconfigure(bad))
	require.Equal(t, "hedge", h.Config().Name, "a refused Config changes nothing")
	kind, name, config := h.Describe()
	require.Equal(t, []any{"hedge", "hedge", h.Config()}, []any{kind, name, config})
	require.Equal(t, map[string]float64{
		"calls_total": 0, "hedged_total": 0, "second_won_total": 0, "denied_total": 0,
		"running": 0, "late_panics_total": 0, "delay_seconds": 0.1,
	}, maps.Collect(h.Metrics()))
}

func FuzzConfigRoundTrips(f *testing.F) {
	f.Add([]byte(`{"name":"x","after":"1h","quantile":0.99,"budget":"off"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var first, second hedge.Config
		if json.Unmarshal(data, &first) != nil || first.Validate() != nil {
			return
		}
		out, err := json.Marshal(first)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(out, &second), "%s", out)
		require.Equal(t, hedge.New(first).Config(), hedge.New(second).Config())
	})
}
