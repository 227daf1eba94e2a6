package mempubsub

import "github.com/backstay-go/backstay/internal/configdata"

// Config sizes a broker. It is plain data with a JSON form; the zero value is ready for use. It is fixed once New has
// returned.
type Config struct {
	// Name labels the broker in metrics. Default "mem".
	Name string `json:"name"`
	// Lanes is the number of lanes per topic of an ordered group, which bounds the members that can share its work.
	// Default 16. Negative is refused.
	Lanes int `json:"lanes"`
	// MaxPending bounds the messages that a group has not settled, and the dead letters that nobody has read. Beyond
	// it, Publish waits. Default 10000. Negative is refused.
	MaxPending int `json:"max_pending"`
	// Retain is the number of latest messages per topic that are kept for groups that begin at "start". Default 0:
	// none. Negative is refused.
	Retain int `json:"retain"`
}

// MarshalJSON writes the fields that are not zero.
func (c Config) MarshalJSON() ([]byte, error) { return configdata.Marshal(c) }

// UnmarshalJSON replaces all of c; unknown fields are an error.
func (c *Config) UnmarshalJSON(b []byte) error { return configdata.Unmarshal(b, c) }

// Validate reports every fault at once.
func (c Config) Validate() error {
	f := configdata.Check("mempubsub", c.Name)
	f.Require(c.Lanes >= 0, "Lanes", c.Lanes, "positive, or zero for the default")
	f.Require(c.MaxPending >= 0, "MaxPending", c.MaxPending, "positive, or zero for the default")
	f.Require(c.Retain >= 0, "Retain", c.Retain, "zero or positive")
	return f.Err()
}

func (c Config) withDefaults() Config {
	if c.Name == "" {
		c.Name = "mem"
	}
	c.Lanes = configdata.Default(c.Lanes, 16)
	c.MaxPending = configdata.Default(c.MaxPending, 10_000)
	return c
}
