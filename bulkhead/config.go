package bulkhead

import (
	"time"

	"github.com/backstay-go/backstay/configdata"
)

// Config is the data of a Bulkhead: plain, comparable, JSON in snake_case with durations as "250ms". The zero Config is
// valid and means the defaults. Hold it as a named field, never embed it, since its JSON methods would be promoted.
// Every field may be changed while running by [Bulkhead.Reconfigure].
type Config struct {
	// Name appears in errors and metrics. Default "bulkhead".
	Name string `json:"name"`
	// MaxConcurrent is how many calls may run at once, and the greatest weight of one call. Default 10, at most 1,000,000;
	// negative is refused.
	MaxConcurrent int `json:"max_concurrent"`
	// MaxQueue is how many callers may wait for a permit. Default 0: nobody waits; at most 1,000,000; negative is the same
	// as 0.
	MaxQueue int `json:"max_queue"`
	// QueueTimeout is how long a caller waits before it is rejected. Default off: as long as its context allows; negative
	// is off.
	QueueTimeout time.Duration `json:"queue_timeout"`
}

const maxCount = 1_000_000

// Validate reports every field that is out of range, or nil.
func (c Config) Validate() error {
	f := configdata.Check("bulkhead", c.Name)
	f.Require(c.MaxConcurrent >= 0 && c.MaxConcurrent <= maxCount, "MaxConcurrent", c.MaxConcurrent,
		"from 1 to 1000000, or 0 for the default")
	f.Require(c.MaxQueue <= maxCount, "MaxQueue", c.MaxQueue, "at most 1000000")
	return f.Err()
}

func (c Config) withDefaults() Config {
	if c.Name == "" {
		c.Name = "bulkhead"
	}
	c.MaxConcurrent = configdata.Default(c.MaxConcurrent, 10)
	c.MaxQueue = configdata.Default(c.MaxQueue, -1)
	c.QueueTimeout = configdata.Default(c.QueueTimeout, -1)
	return c
}

// MarshalJSON writes the fields that are set; a negative one is "off".
func (c Config) MarshalJSON() ([]byte, error) { return configdata.Marshal(c) }

// UnmarshalJSON reads a whole Config and refuses unknown fields. It does not validate: call Validate.
func (c *Config) UnmarshalJSON(data []byte) error { return configdata.Unmarshal(data, c) }
