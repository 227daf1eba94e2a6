package mempubsub

import (
	"time"

	"github.com/backstay-go/backstay/configdata"
)

// Config sizes a broker. It is plain data with a JSON form; the zero value is ready for use. It is fixed once New has
// returned.
type Config struct {
	// Name labels the broker in metrics. Default "mem".
	Name string `json:"name"`
	// Lanes is the number of lanes per topic of an ordered group, which bounds the members that can share its work.
	// Default 16. Negative is refused.
	Lanes int `json:"lanes"`
	// MaxPending bounds the messages that a group has not settled, those that wait for their DeliverAt included, and
	// the dead letters that nobody has read. Default 10000. Negative is refused.
	MaxPending int `json:"max_pending"`
	// WhenFull says what Publish does when a group has MaxPending messages: "wait" (the default) until there is room,
	// "reject" to fail at once with an *Error that is ErrFull.
	WhenFull string `json:"when_full"`
	// Retain is the number of latest messages per topic that are kept for groups that begin at "start" or at a time.
	// Such a group may hold that many even if it is more than MaxPending. Default 0: none. Negative is refused.
	Retain int `json:"retain"`
	// DedupWindow is for how long a pubsub.DedupID is remembered, per topic, from when it was accepted: another message
	// with it is accepted, counted in Stats.Duplicates and delivered to nobody. Default 0: off. Negative is refused.
	// An ID takes about 60 bytes whatever its length. At most 1,048,576 are remembered for a topic; while there are
	// that many it counts as full, since forgetting one early would let a duplicate through.
	DedupWindow time.Duration `json:"dedup_window"`
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
	f.Require(c.WhenFull == "" || c.WhenFull == waits || c.WhenFull == rejects, "WhenFull", c.WhenFull, `"wait" or "reject"`)
	f.Require(c.Retain >= 0, "Retain", c.Retain, "zero or positive")
	f.Require(c.DedupWindow >= 0, "DedupWindow", c.DedupWindow, "zero or positive")
	return f.Err()
}

// The values of Config.WhenFull.
const (
	waits   = "wait"
	rejects = "reject"
)

func (c Config) withDefaults() Config {
	if c.Name == "" {
		c.Name = "mem"
	}
	if c.WhenFull == "" {
		c.WhenFull = waits
	}
	c.Lanes = configdata.Default(c.Lanes, 16)
	c.MaxPending = configdata.Default(c.MaxPending, 10_000)
	return c
}
