package ratelimit

import (
	"math"
	"time"

	"github.com/backstay-go/backstay/configdata"
)

// Config is the data of a Limiter: plain, comparable, JSON in snake_case with durations as "250ms". The zero Config is
// valid and means the defaults. Hold it as a named field, never embed it, since its JSON methods would be promoted.
// Every field may be changed while running by [Limiter.Reconfigure].
type Config struct {
	// Name appears in errors and metrics. Default "ratelimit".
	Name string `json:"name"`
	// Rate is how many calls pass in a second, in the long run. Default 100, at most 1,000,000,000; 0.1 is one in ten
	// seconds. Negative is off: every call passes at once.
	Rate float64 `json:"rate"`
	// Burst is how many calls may pass at the same moment after a quiet time, and the greatest weight of one call. Default
	// Rate rounded up, which is the calls of one second; at most 1,000,000,000, and at most what Rate lets through in a year;
	// negative is refused.
	Burst int `json:"burst"`
	// MaxWait is the longest wait for a turn. Default 0: a call that cannot pass at once is rejected. Negative is no limit:
	// as long as the context allows.
	MaxWait time.Duration `json:"max_wait"`
}

const (
	maxRate  = 1_000_000_000
	maxBurst = 1_000_000_000
	year     = 365 * 24 * time.Hour
)

// Validate reports every field that is out of range, or nil.
func (c Config) Validate() error {
	f := configdata.Check("ratelimit", c.Name)
	f.Require(c.Rate <= maxRate, "Rate", c.Rate, "at most 1000000000, 0 for the default, or negative for off") // NaN is refused too
	f.Require(c.Burst >= 0 && c.Burst <= maxBurst, "Burst", c.Burst, "from 1 to 1000000000, or 0 for the default")
	if d := c.withDefaults(); d.Rate > 0 && d.Rate <= maxRate {
		f.Require(float64(d.Burst) <= d.Rate*year.Seconds(), "Burst", d.Burst, "at most what Rate lets through in a year")
	}
	return f.Err()
}

func (c Config) withDefaults() Config {
	if c.Name == "" {
		c.Name = "ratelimit"
	}
	c.Rate = configdata.Default(c.Rate, 100)
	c.Burst = configdata.Default(c.Burst, int(math.Ceil(min(max(c.Rate, 1), maxRate))))
	c.MaxWait = configdata.Default(c.MaxWait, 0)
	return c
}

// MarshalJSON writes the fields that are set; a negative one is "off".
func (c Config) MarshalJSON() ([]byte, error) { return configdata.Marshal(c) }

// UnmarshalJSON reads a whole Config and refuses unknown fields. It does not validate: call Validate.
func (c *Config) UnmarshalJSON(data []byte) error { return configdata.Unmarshal(data, c) }
