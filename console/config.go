package console

import (
	"time"

	"github.com/backstay-go/backstay/configdata"
)

// Config is the data of a Console: plain, comparable, JSON in snake_case with durations as "250ms". The zero Config is valid
// and means the defaults. Hold it as a named field, never embed it, since its JSON methods would be promoted. It is fixed.
type Config struct {
	// Name is the title of the page: what service this is. Default "backstay".
	Name string `json:"name"`
	// Interval is how often objects are looked at while somebody watches. Default 500ms, from 100ms to 1m; negative is refused.
	Interval time.Duration `json:"interval"`
	// History is how many looks are kept for the timelines. Default 120, a minute of the default Interval; at most 10,000;
	// negative is refused. A number that has changed within that time takes 4 bytes a look.
	History int `json:"history"`
	// Events is how many lines the event log keeps. Default 200, at most 10,000; negative is off.
	Events int `json:"events"`
	// MaxViewers is how many streams may be open at once; further viewers fall back to asking for the JSON. Default 64; negative is
	// off: nothing is streamed.
	MaxViewers int `json:"max_viewers"`
	// CheckTimeout bounds each check of [Console.Readiness]. Default 1s; negative is refused.
	CheckTimeout time.Duration `json:"check_timeout"`
}

// Validate reports every field that is out of range, or nil.
func (c Config) Validate() error {
	f := configdata.Check("console", c.Name)
	d := c.withDefaults()
	f.Require(d.Interval >= 100*time.Millisecond && d.Interval <= time.Minute, "Interval", c.Interval, "from 100ms to 1m, or 0 for the default")
	f.Require(d.History >= 2 && d.History <= 10_000, "History", c.History, "from 2 to 10000, or 0 for the default")
	f.Require(d.Events <= 10_000, "Events", c.Events, "at most 10000, 0 for the default, or negative for off")
	f.Require(d.CheckTimeout > 0, "CheckTimeout", c.CheckTimeout, "positive, or 0 for the default")
	return f.Err()
}

func (c Config) withDefaults() Config {
	if c.Name == "" {
		c.Name = "backstay"
	}
	c.Interval = configdata.Default(c.Interval, 500*time.Millisecond)
	c.History = configdata.Default(c.History, 120)
	c.Events = configdata.Default(c.Events, 200)
	c.MaxViewers = configdata.Default(c.MaxViewers, 64)
	c.CheckTimeout = configdata.Default(c.CheckTimeout, time.Second)
	return c
}

// MarshalJSON writes the fields that are set; a negative one is "off".
func (c Config) MarshalJSON() ([]byte, error) { return configdata.Marshal(c) }

// UnmarshalJSON reads a whole Config and refuses unknown fields. It does not validate: call Validate.
func (c *Config) UnmarshalJSON(data []byte) error { return configdata.Unmarshal(data, c) }
