package breaker

import (
	"math/rand/v2"
	"time"

	"github.com/backstay-go/backstay/configdata"
)

// Config is the data of a Breaker: plain, comparable, JSON in snake_case with durations as "250ms". The zero Config is
// valid and means the defaults. Hold it as a named field, never embed it, since its JSON methods would be promoted.
// Every field may be changed while running by [Breaker.Reconfigure].
type Config struct {
	// Name appears in errors, events and metrics. Default "breaker".
	Name string `json:"name"`
	// Mode is "auto", "force_open", "force_closed" or "metrics_only". Default "auto". A forced mode is a change of state
	// like any other; leaving "force_open" for "auto" begins half-open, with probes, and leaving "force_closed" keeps
	// the window. Under "metrics_only" the states follow one another as under "auto" but nothing is rejected: a call
	// that would have been is counted, passes, and is not judged.
	Mode string `json:"mode"`
	// Window is the number of latest calls that are judged. Default 100, at most 1,000,000; negative is refused.
	// Changing it starts an empty window.
	Window int `json:"window"`
	// WindowTime makes the window one of time instead: the calls that ended within it are judged, to a tenth of it.
	// Default off, and Window counts; negative is off. It is refused beside a Window. Changing it starts an empty window.
	WindowTime time.Duration `json:"window_time"`
	// FailureRatio opens the breaker when failures divided by calls in the window reach it, from just above 0 to 1.
	// Default 0.5; negative is off.
	FailureRatio float64 `json:"failure_ratio"`
	// MinimumCalls is how many calls the window must hold before FailureRatio and SlowRatio are judged. Default 20, or
	// Window when that is smaller; negative is refused.
	MinimumCalls int `json:"minimum_calls"`
	// ConsecutiveFailures opens the breaker after so many failures without a success between. Default off; negative
	// is off.
	ConsecutiveFailures int `json:"consecutive_failures"`
	// SlowCall is how long a call must take to be slow, whatever its result; one that is still under way after that
	// time is slow already. A slow probe fails. Default off; negative is off; at least 1ms. When on,
	// a call reads the clock twice.
	// Changing it starts an empty window.
	SlowCall time.Duration `json:"slow_call"`
	// SlowRatio opens the breaker when slow calls divided by calls, those still under way past SlowCall among both,
	// reach it, from just above 0 to 1. Default 0.5; negative is off. Without SlowCall it means nothing.
	SlowRatio float64 `json:"slow_ratio"`
	// OpenDelay is how long the breaker rejects before it lets probes through. Default 5s; negative is refused.
	// A change counts from the next opening.
	OpenDelay time.Duration `json:"open_delay"`
	// MaxOpenDelay bounds the growth of the delay. Each opening that follows a failed probe, or a close that lasted less
	// than the delay before it, doubles the delay up to this bound, and a random part of up to half is taken off so
	// that many clients do not probe in step; it is never below OpenDelay. Default ten times OpenDelay; negative is
	// off: the delay is always OpenDelay. A change counts from the next opening.
	MaxOpenDelay time.Duration `json:"max_open_delay"`
	// Probes is how many calls are let through while half-open, and how many must succeed to close. Default 3;
	// negative is refused. A change starts the probes under way anew.
	Probes int `json:"probes"`
	// ProbeTimeout is how long probes may take before they count as lost, and new ones are let through in their
	// place. Default 30s; negative is off: a probe that hangs then blocks the recovery.
	ProbeTimeout time.Duration `json:"probe_timeout"`
}

// The values of Config.Mode.
const (
	auto        = "auto"
	forceOpen   = "force_open"
	forceClosed = "force_closed"
	metricsOnly = "metrics_only"
)

const (
	maxWindow = 1_000_000
	maxDelay  = 365 * 24 * time.Hour // keeps sums of durations from overflowing
)

// Validate reports every field that is out of range, or nil.
func (c Config) Validate() error {
	f := configdata.Check("breaker", c.Name)
	d := c.withDefaults()
	switch d.Mode {
	case auto, forceOpen, forceClosed, metricsOnly:
	default:
		f.Require(false, "Mode", c.Mode, `"auto", "force_open", "force_closed" or "metrics_only"`)
	}
	f.Require(c.Window >= 0 && c.Window <= maxWindow, "Window", c.Window, "from 1 to 1000000, or 0 for the default")
	f.Require(c.WindowTime <= 0 || c.Window <= 0, "WindowTime", c.WindowTime, "off beside a Window: the window is one of calls or one of time")
	f.Require(c.WindowTime <= maxDelay, "WindowTime", c.WindowTime, "at most a year")
	f.Require(c.FailureRatio <= 1, "FailureRatio", c.FailureRatio, "at most 1, 0 for the default, or negative for off")
	f.Require(c.MinimumCalls >= 0 && (d.WindowTime > 0 || c.MinimumCalls <= max(d.Window, 0)), "MinimumCalls", c.MinimumCalls,
		"from 1 to Window, or 0 for the default")
	f.Require(c.SlowCall <= 0 || c.SlowCall >= time.Millisecond && c.SlowCall <= maxDelay, "SlowCall", c.SlowCall,
		"from 1ms to a year, or off")
	f.Require(c.SlowRatio <= 1, "SlowRatio", c.SlowRatio, "at most 1, 0 for the default, or negative for off")
	f.Require(c.OpenDelay >= 0 && c.OpenDelay <= maxDelay, "OpenDelay", c.OpenDelay, "positive and at most a year, or 0 for the default")
	f.Require(c.MaxOpenDelay <= 0 || c.MaxOpenDelay >= d.OpenDelay && c.MaxOpenDelay <= maxDelay, "MaxOpenDelay", c.MaxOpenDelay,
		"from OpenDelay to a year, 0 for the default, or negative for off")
	f.Require(c.Probes >= 0, "Probes", c.Probes, "positive, or 0 for the default")
	f.Require(d.FailureRatio > 0 || d.ConsecutiveFailures > 0 || d.SlowCall > 0 && d.SlowRatio > 0, "FailureRatio", c.FailureRatio,
		"on, unless ConsecutiveFailures or SlowCall is: a breaker with all off never opens")
	return f.Err()
}

func (c Config) withDefaults() Config {
	if c.Name == "" {
		c.Name = "breaker"
	}
	if c.Mode == "" {
		c.Mode = auto
	}
	c.WindowTime = configdata.Default(c.WindowTime, -1)
	if c.WindowTime < 0 {
		c.Window = configdata.Default(c.Window, 100)
		c.MinimumCalls = configdata.Default(c.MinimumCalls, min(20, c.Window))
	}
	c.MinimumCalls = configdata.Default(c.MinimumCalls, 20)
	c.FailureRatio = configdata.Default(c.FailureRatio, 0.5)
	c.ConsecutiveFailures = configdata.Default(c.ConsecutiveFailures, -1)
	c.SlowCall = configdata.Default(c.SlowCall, -1)
	c.SlowRatio = configdata.Default(c.SlowRatio, 0.5)
	c.OpenDelay = configdata.Default(c.OpenDelay, 5*time.Second)
	c.MaxOpenDelay = configdata.Default(c.MaxOpenDelay, min(10*c.OpenDelay, maxDelay))
	c.Probes = configdata.Default(c.Probes, 3)
	c.ProbeTimeout = configdata.Default(c.ProbeTimeout, 30*time.Second)
	return c
}

// delay is how long an opening lasts that was preceded by so many others in a row.
func (c *Config) delay(repeats int) time.Duration {
	if repeats == 0 || c.MaxOpenDelay <= 0 {
		return c.OpenDelay
	}
	longest := c.OpenDelay
	for range repeats {
		if longest *= 2; longest >= c.MaxOpenDelay {
			longest = c.MaxOpenDelay
			break
		}
	}
	shortest := max(c.OpenDelay, longest/2)
	return shortest + rand.N(longest-shortest+1)
}

// MarshalJSON writes the fields that are set; a negative one is "off".
func (c Config) MarshalJSON() ([]byte, error) { return configdata.Marshal(c) }

// UnmarshalJSON reads a whole Config and refuses unknown fields. It does not validate: call Validate.
func (c *Config) UnmarshalJSON(data []byte) error { return configdata.Unmarshal(data, c) }
