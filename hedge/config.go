package hedge

import (
	"math"
	"time"

	"github.com/backstay-go/backstay/configdata"
)

// Config is the data of a Hedge: plain, comparable, JSON in snake_case with durations as "250ms". The zero Config is valid
// and means the defaults. Hold it as a named field, never embed it, since its JSON methods would be promoted. Every field
// may be changed while running by [Hedge.Reconfigure], for calls that begin afterwards.
type Config struct {
	// Name appears in errors and metrics. Default "hedge".
	Name string `json:"name"`
	// After is how long the first call may run before a second one begins, or where Quantile is set, until 100 latencies are
	// known. Default 100ms; negative is off: no second call, or not before the quantile is known.
	After time.Duration `json:"after"`
	// Quantile takes the delay from the latencies of the latest calls: 0.95 means that a second call begins when the first
	// takes longer than 95 of 100. Below 1. Default off; negative is off.
	Quantile float64 `json:"quantile"`
	// Budget is the share of calls that may get a second one. Default 0.1, at most 1; negative is off: all of them.
	Budget float64 `json:"budget"`
}

// Validate reports every field that is out of range, or nil.
func (c Config) Validate() error {
	f := configdata.Check("hedge", c.Name)
	f.Require(c.Quantile < 1, "Quantile", c.Quantile, "below 1, or 0 or negative for off")
	f.Require(c.Budget <= 1, "Budget", c.Budget, "at most 1, 0 for the default, or negative for off")
	return f.Err()
}

func (c Config) withDefaults() Config {
	if c.Name == "" {
		c.Name = "hedge"
	}
	c.After = configdata.Default(c.After, 100*time.Millisecond)
	c.Quantile = configdata.Default(c.Quantile, -1)
	c.Budget = configdata.Default(c.Budget, 0.1)
	return c
}

// MarshalJSON writes the fields that are set; a negative one is "off".
func (c Config) MarshalJSON() ([]byte, error) { return configdata.Marshal(c) }

// UnmarshalJSON reads a whole Config and refuses unknown fields. It does not validate: call Validate.
func (c *Config) UnmarshalJSON(data []byte) error { return configdata.Unmarshal(data, c) }

// The balance of a budget counts in millionths of a second call, and saves up ten.
const (
	oneCall = int64(1e6)
	savedUp = 10 * oneCall
)

// share is what one call pays into the budget.
func (c *Config) share() int64 { return int64(math.Round(c.Budget * float64(oneCall))) }
