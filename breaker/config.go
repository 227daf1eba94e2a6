package breaker

import (
	"time"

	"github.com/backstay-go/backstay/internal/configdata"
)

// Config is the data of a Breaker: plain, comparable, JSON in snake_case with durations as "250ms". The zero Config is
// valid and means the defaults. Hold it as a named field, never embed it, since its JSON methods would be promoted.
// Every field may be changed while running by [Breaker.Reconfigure].
type Config struct {
	// Name appears in errors, events and metrics. Default "breaker".
	Name string `json:"name"`
	// Window is the number of latest calls that are judged. Default 100, at most 1,000,000; negative is refused.
	// Changing it starts an empty window.
	Window int `json:"window"`
	// FailureRatio opens the breaker when failures divided by calls in the window reach it, from just above 0 to 1.
	// Default 0.5; negative is off.
	FailureRatio float64 `json:"failure_ratio"`
	// MinimumCalls is how many calls the window must hold before FailureRatio is judged. Default 20, or Window when
	// that is smaller; negative is refused.
	MinimumCalls int `json:"minimum_calls"`
	// ConsecutiveFailures opens the breaker after so many failures without a success between. Default off; negative
	// is off.
	ConsecutiveFailures int `json:"consecutive_failures"`
	// OpenDelay is how long the breaker rejects before it lets probes through. Default 5s; negative is refused.
	// A change counts from the next opening.
	OpenDelay time.Duration `json:"open_delay"`
	// Probes is how many calls are let through while half-open, and how many must succeed to close. Default 3;
	// negative is refused.
	Probes int `json:"probes"`
	// ProbeTimeout is how long probes may take before they count as lost, and new ones are let through in their
	// place. Default 30s; negative is off: a probe that hangs then blocks the recovery.
	ProbeTimeout time.Duration `json:"probe_timeout"`
}

const maxWindow = 1_000_000

// Validate reports every field that is out of range, or nil.
func (c Config) Validate() error {
	f := configdata.Check("breaker", c.Name)
	f.Require(c.Window >= 0 && c.Window <= maxWindow, "Window", c.Window, "from 1 to 1000000, or 0 for the default")
	f.Require(c.FailureRatio <= 1, "FailureRatio", c.FailureRatio, "at most 1, 0 for the default, or negative for off")
	d := c.withDefaults()
	f.Require(c.MinimumCalls >= 0 && c.MinimumCalls <= max(d.Window, 0), "MinimumCalls", c.MinimumCalls,
		"from 1 to Window, or 0 for the default")
	f.Require(c.OpenDelay >= 0, "OpenDelay", c.OpenDelay, "positive, or 0 for the default")
	f.Require(c.Probes >= 0, "Probes", c.Probes, "positive, or 0 for the default")
	f.Require(d.FailureRatio > 0 || d.ConsecutiveFailures > 0, "FailureRatio", c.FailureRatio,
		"on, unless ConsecutiveFailures is: a breaker with both off never opens")
	return f.Err()
}

func (c Config) withDefaults() Config {
	if c.Name == "" {
		c.Name = "breaker"
	}
	c.Window = configdata.Default(c.Window, 100)
	c.FailureRatio = configdata.Default(c.FailureRatio, 0.5)
	c.MinimumCalls = configdata.Default(c.MinimumCalls, min(20, c.Window))
	c.ConsecutiveFailures = configdata.Default(c.ConsecutiveFailures, -1)
	c.OpenDelay = configdata.Default(c.OpenDelay, 5*time.Second)
	c.Probes = configdata.Default(c.Probes, 3)
	c.ProbeTimeout = configdata.Default(c.ProbeTimeout, 30*time.Second)
	return c
}

// MarshalJSON writes the fields that are set; a negative one is "off".
func (c Config) MarshalJSON() ([]byte, error) { return configdata.Marshal(c) }

// UnmarshalJSON reads a whole Config and refuses unknown fields. It does not validate: call Validate.
func (c *Config) UnmarshalJSON(data []byte) error { return configdata.Unmarshal(data, c) }
