package configdata_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/configdata"
)

type config struct {
	Name  string        `json:"name"`
	Limit int           `json:"limit"`
	Ratio float64       `json:"ratio"`
	Delay time.Duration `json:"delay"`
	Loud  bool          `json:"loud"`
}

func TestMarshalWritesWhatIsSet(t *testing.T) {
	data, err := configdata.Marshal(config{Name: "a \"b\"", Limit: -3, Ratio: 0.5, Delay: 1500 * time.Millisecond})
	require.NoError(t, err)
	require.JSONEq(t, `{"name":"a \"b\"","limit":"off","ratio":0.5,"delay":"1.5s"}`, string(data))
}

func TestUnmarshalReplacesTheWholeConfig(t *testing.T) {
	c := config{Name: "old", Loud: true}
	require.NoError(t, configdata.Unmarshal([]byte(`{"limit":"off","ratio":"off","delay":"250ms"}`), &c))
	require.Equal(t, config{Limit: -1, Ratio: -1, Delay: 250 * time.Millisecond}, c)
}

func TestUnmarshalReportsEveryFaultAndChangesNothing(t *testing.T) {
	c := config{Name: "old"}
	err := configdata.Unmarshal([]byte(`{"name":1,"limit":"many","delay":250,"dealy":"1s"}`), &c)
	require.ErrorContains(t, err, `field "name": 1 is not a string`)
	require.ErrorContains(t, err, `field "limit": "many" is not a int`)
	require.ErrorContains(t, err, `field "delay": 250 is not a duration: write a string such as "250ms"`)
	require.ErrorContains(t, err, `unknown field "dealy"`)
	require.Equal(t, config{Name: "old"}, c)
}

func TestUnmarshalRefusesOtherText(t *testing.T) {
	for _, text := range []string{``, `[]`, `"x"`, `{"limit":1} {"limit":2}`, `{"limit":1}x`, `{"limit":1.5}`, `{"delay":"soon"}`, `{"name":"off`} {
		require.Error(t, configdata.Unmarshal([]byte(text), &config{}), text)
	}
}

func TestFaultsAreReportedTogether(t *testing.T) {
	f := configdata.Check("retry", "bank")
	f.Require(true, "Fine", 1, "anything")
	f.Require(false, "Limit", -1, "positive")
	f.Require(false, "Ratio", 2, "at most 1")
	require.EqualError(t, f.Err(), "retry \"bank\": Config.Limit is -1: it must be positive\n"+
		"retry \"bank\": Config.Ratio is 2: it must be at most 1")
	require.NoError(t, configdata.Check("retry", "").Err())
}

func TestDefault(t *testing.T) {
	require.Equal(t, 7, configdata.Default(0, 7))
	require.Equal(t, -1, configdata.Default(-9, 7))
	require.Equal(t, 3, configdata.Default(3, 7))
}

func FuzzUnmarshalThenMarshalRoundTrips(f *testing.F) {
	f.Add([]byte(`{"name":"x","limit":3,"ratio":0.25,"delay":"1h2m","loud":true}`))
	f.Add([]byte(`{"limit":"off","delay":"-5s"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var first, second config
		if configdata.Unmarshal(data, &first) != nil {
			return
		}
		out, err := configdata.Marshal(first)
		require.NoError(t, err)
		require.NoError(t, configdata.Unmarshal(out, &second), "%s", out)
		first.Limit, first.Ratio, first.Delay = max(first.Limit, -1), max(first.Ratio, -1), max(first.Delay, -1)
		require.Equal(t, first, second)
	})
}
