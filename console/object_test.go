package console_test

import (
	"errors"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/console"
)

func TestHostileTextIsMadeHarmless(t *testing.T) {
	c := console.New(console.Config{Name: "a\x00b"})
	o := &thing{kind: "<b>kind</b>\x1b[31m", name: strings.Repeat("名", 10_000), metrics: map[string]float64{"x\u202ey\n": 1, strings.Repeat("m", 10_000): 2}}
	o.config = map[string]any{"a\u2066b": "c\x07d"}
	c.Add(o)
	c.Record(console.Event{Kind: "\r\n\r\n", Text: "data: \u2028 " + strings.Repeat("x", 10_000)})
	w := get(c, "/api")
	require.NotContains(t, w.Body.String(), "<b>", "not even as JSON is there markup")
	s := decode[state](t, w.Body.String())
	require.Equal(t, "a\ufffdb", s.Title)
	shown := s.Objects[0]
	require.Equal(t, "<b>kind</b>\ufffd[31m", shown.Kind)
	require.Equal(t, strings.Repeat("名", 200)+"…", shown.Name)
	require.Contains(t, shown.Metrics, "x\ufffdy\ufffd")
	require.Contains(t, shown.Metrics, strings.Repeat("m", 200)+"…")
	require.Equal(t, "\ufffd\ufffd\ufffd\ufffd", s.Events[0].Kind)
	require.Less(t, len(s.Events[0].Text), 600)
	require.JSONEq(t, `{"a\ufffdb":"c\ufffdd"}`, string(decode[object](t, get(c, "/api/objects/1").Body.String()).Config))
}

func TestSecretsAreStruckOut(t *testing.T) {
	c := console.New(console.Config{})
	config := map[string]any{
		"password": "p1", "APIKey": "p2", "auth_token": "p3", "client_secret": "p4", "max_tokens": 5, "empty_password": "",
		"url": "postgres://app:p5@db/orders?x=1", "nested": []any{map[string]any{"dbPassword": "p6"}}, "plain": "yes", "big": 12345678901234567,
	}
	c.Add(&thing{kind: "db", name: "orders", config: config})
	text := get(c, "/api/objects/1").Body.String()
	for _, secret := range []string{"p1", "p2", "p3", "p4", "p5", "p6"} {
		require.NotContains(t, text, secret)
	}
	require.JSONEq(t, `{"password":"(hidden)","APIKey":"(hidden)","auth_token":"(hidden)","client_secret":"(hidden)","max_tokens":5,
		"empty_password":"","url":"postgres://app:(hidden)@db/orders?x=1","nested":[{"dbPassword":"(hidden)"}],"plain":"yes","big":12345678901234567}`,
		string(decode[object](t, text).Config))
}

func TestAConfigurationThatCannotBeShownSaysSo(t *testing.T) {
	for name, tt := range map[string]struct {
		config any
		says   string
	}{
		"no JSON": {make(chan int), "no JSON"},
		"large":   {strings.Repeat("x", 100_000), "64 kB"},
		"panics":  {panicking{}, "Describe panics: not me"},
	} {
		c := console.New(console.Config{})
		c.Add(&thing{kind: "x", name: name, config: tt.config})
		require.Contains(t, string(decode[object](t, get(c, "/api/objects/1").Body.String()).Config), tt.says)
	}
}

type panicking struct{}

func (panicking) MarshalJSON() ([]byte, error) { panic("not me") }

func TestNumbersThatJSONLacksAreNull(t *testing.T) {
	c := console.New(console.Config{})
	c.Add(&thing{kind: "x", name: "y", metrics: map[string]float64{"nan": math.NaN(), "inf": math.Inf(1), "big": 1 << 53, "small": 0.125, "huge": 1e300}})
	m := snapshot(t, c).Objects[0].Metrics
	require.Nil(t, m["nan"])
	require.Nil(t, m["inf"])
	require.EqualValues(t, 1<<53, m["big"])
	require.InDelta(t, 0.125, m["small"], 0)
	require.InDelta(t, 1e300, m["huge"], 1e290)
}

func TestObjectsAreJudged(t *testing.T) {
	for name, tt := range map[string]struct {
		kind    string
		metrics map[string]float64
		why     string
	}{
		"closed":      {"breaker", map[string]float64{"state": 0}, ""},
		"open":        {"breaker", map[string]float64{"state": 1}, "open"},
		"half-open":   {"breaker", map[string]float64{"state": 2}, "half-open"},
		"set":         {"breaker.Set", map[string]float64{"keys": 9, "open": 2}, "2 open"},
		"budget":      {"retry budget", map[string]float64{"balance": 0.5}, "spent"},
		"budget left": {"retry budget", map[string]float64{"balance": 1}, ""},
		"bulkhead":    {"bulkhead", map[string]float64{"running": 3, "limit": 3}, "full"},
		"unlimited":   {"bulkhead", map[string]float64{"running": 3, "limit": -1}, ""},
		"cache":       {"cache", map[string]float64{"store_away": 1}, "store away"},
		"relay":       {"relay", map[string]float64{"parked": 3}, "3 parked"},
		"late relay":  {"relay", map[string]float64{"oldest_age_seconds": 61}, "oldest waits for more than a minute"},
		"saga":        {"saga", map[string]float64{"unknown": 1}, "1 without a definition here"},
		"own":         {"boiler", map[string]float64{"state": 1}, ""},
	} {
		c := console.New(console.Config{})
		c.Add(&thing{kind: tt.kind, name: name, metrics: tt.metrics})
		o := snapshot(t, c).Objects[0]
		require.Equal(t, tt.why, o.Why, name)
		require.Equal(t, tt.why == "", o.Status == "ok", name)
	}
	o := &thing{kind: "boiler", health: errors.New("too hot")}
	c := console.New(console.Config{})
	c.Add(o)
	require.Equal(t, "unwell: too hot", snapshot(t, c).Objects[0].Why)
}

func TestEachKindHasItsPanel(t *testing.T) {
	for kind, panel := range map[string]string{
		"breaker": "breakers", "breaker.Set": "breakers", "retry": "retries", "retry budget": "retries", "timeout": "retries", "hedge": "retries",
		"fallback": "retries", "bulkhead": "limits", "ratelimit": "limits", "cache": "caches", "rediscache": "others",
		"pubsub.consumer": "subscriptions", "pubsub.mem": "subscriptions", "natspubsub": "subscriptions", "requestreply.client": "subscriptions",
		"outbox": "outboxes", "relay": "outboxes", "inbox": "outboxes", "saga": "sagas", "boiler": "others", "": "others",
	} {
		c := console.New(console.Config{})
		c.Add(&thing{kind: kind})
		require.Equal(t, panel, snapshot(t, c).Objects[0].Panel, kind)
	}
}

func TestGrowthOfACounterIsAnEventNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &thing{kind: "pubsub.consumer", name: "mail", metrics: map[string]float64{"dead_lettered_total": 7}}
		c := console.New(console.Config{})
		c.Add(o)
		require.Empty(t, snapshot(t, c).Events, "what was before is no news")
		v := view(t, c)
		defer v.close()
		v.read()
		for i := range 20 { // 10 s
			o.set("dead_lettered_total", float64(8+i))
			v.read()
		}
		for range 20 {
			v.read()
		}
		var texts []string
		for _, e := range snapshot(t, c).Events {
			texts = append(texts, e.Text)
		}
		require.Equal(t, []string{"dead letter", "dead letter, 10 times", "dead letter, 9 times"}, texts)
	})
}

func TestABreakerThatOpensBetweenTwoLooksIsInTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := breakerThing("bank", 0)
		o.set("opened_total", 5)
		c := console.New(console.Config{})
		c.Add(o)
		v := view(t, c)
		defer v.close()
		v.read()
		o.set("opened_total", 6)
		o.set("state", 1)
		v.read()
		o.set("state", 0)
		v.read()
		o.set("opened_total", 8)
		v.read()
		var texts []string
		for _, e := range snapshot(t, c).Events {
			texts = append(texts, e.Text)
		}
		require.Equal(t, []string{"open", "well again, after: open", "opened between two looks, 2 times"}, texts)
	})
}

func TestTheLogIsBoundedAndKeepsTheLatest(t *testing.T) {
	c := console.New(console.Config{Events: 3})
	for _, text := range []string{"a", "b", "c", "d", "e"} {
		c.Record(console.Event{Text: text})
	}
	events := snapshot(t, c).Events
	require.Len(t, events, 3)
	require.Equal(t, "c", events[0].Text)
	require.Equal(t, 5, events[2].Seq)
	off := console.New(console.Config{Events: -1})
	off.Record(console.Event{Text: "a"})
	require.Empty(t, snapshot(t, off).Events)
}

func TestHistoryIsThatOfTheLatestLooks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &thing{kind: "boiler", name: "x", metrics: map[string]float64{"flat": 3, "level": 0, "steps_total": 0}}
		c := console.New(console.Config{History: 10})
		c.Add(o)
		v := view(t, c)
		defer v.close()
		v.read()
		detail := func() object { return decode[object](t, get(c, "/api/objects/1").Body.String()) }
		numbers := func(line []*float64) (all []float64) {
			for _, n := range line {
				if n == nil {
					all = append(all, -1)
				} else {
					all = append(all, *n)
				}
			}
			return all
		}
		for i := range 4 {
			v.read()
			o.set("level", float64(i+1))
			o.set("steps_total", float64(10*(i+1)))
		}
		v.read()
		d := detail()
		require.Len(t, d.Times, 6)
		require.Equal(t, []float64{3, 3, 3, 3, 3, 3}, numbers(d.Series["flat"]))
		require.Equal(t, []float64{0, 0, 1, 2, 3, 4}, numbers(d.Series["level"]))
		require.Equal(t, []float64{0, 0, 20, 20, 20, 20}, numbers(d.Series["steps_total"]), "the rate")
		o.set("late", 5)
		for range 8 {
			v.read()
		}
		d = detail()
		require.Equal(t, []float64{3, 4, 4, 4, 4, 4, 4, 4, 4, 4}, numbers(d.Series["level"]))
		require.Equal(t, []float64{-1, -1, 5, 5, 5, 5, 5, 5, 5, 5}, numbers(d.Series["late"]), "it was not there before")
		for range 12 {
			v.read()
		}
		require.Equal(t, []float64{5, 5, 5, 5, 5, 5, 5, 5, 5, 5}, numbers(detail().Series["late"]))
	})
}

func TestAnObjectHasNoHistoryFromBeforeItCame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := console.New(console.Config{History: 10})
		v := view(t, c)
		defer v.close()
		for range 4 {
			v.read()
		}
		o := &thing{kind: "boiler", name: "x", metrics: map[string]float64{"level": 1}}
		c.Add(o)
		v.read()
		v.read()
		o.set("level", 2)
		v.read()
		line := snapshot(t, c).Objects[0].Line
		require.Len(t, line, 7)
		for i, n := range line {
			require.Equal(t, i < 4, n == nil, "look %d", i)
		}
	})
}

func TestTheHitRatioIsOfTheLatestSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &thing{kind: "cache", name: "x", metrics: map[string]float64{"hits_total": 1e6, "misses_total": 0}}
		c := console.New(console.Config{})
		c.Add(o)
		v := view(t, c)
		defer v.close()
		require.EqualValues(t, 1, v.read().Objects[0].Metrics["hit_ratio"])
		for i := range 200 {
			o.set("misses_total", float64(100*(i+1)))
			v.read()
		}
		ratio, ok := snapshot(t, c).Objects[0].Metrics["hit_ratio"].(float64)
		require.True(t, ok)
		require.Less(t, ratio, 0.01)
	})
}

func TestAnObjectWithoutEndIsCutOff(t *testing.T) {
	metrics := map[string]float64{}
	for i := range 5000 {
		metrics[strings.Repeat("x", 1+i%7)+time.Duration(i).String()] = 1
	}
	c := console.New(console.Config{})
	c.Add(&thing{kind: "x", metrics: metrics})
	require.Len(t, snapshot(t, c).Objects[0].Metrics, 200)
}

func TestConfig(t *testing.T) {
	var cfg console.Config
	require.NoError(t, cfg.UnmarshalJSON([]byte(`{"name":"x","interval":"1s","events":"off"}`)))
	require.Equal(t, console.Config{Name: "x", Interval: time.Second, Events: -1}, cfg)
	b, err := console.New(cfg).Config().MarshalJSON()
	require.NoError(t, err)
	require.JSONEq(t, `{"name":"x","interval":"1s","history":120,"events":"off","max_viewers":64,"check_timeout":"1s"}`, string(b))
	err = console.Config{Interval: -1, History: 1, Events: 1e6, CheckTimeout: -1}.Validate()
	for _, field := range []string{"Interval", "History", "Events", "CheckTimeout"} {
		require.ErrorContains(t, err, field)
	}
}
