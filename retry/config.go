package retry

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/backstay-go/backstay/configdata"
)

// Config is the data of a Retrier: plain, comparable, JSON in snake_case with durations as "250ms". The zero Config is valid
// and means the defaults. Hold it as a named field, never embed it, since its JSON methods would be promoted. Every field
// may be changed while running by [Retrier.Reconfigure], for calls that fail for the first time afterwards.
type Config struct {
	// Name appears in errors, events and metrics. Default "retry".
	Name string `json:"name"`
	// MaxAttempts is how often the operation may run, the first time included. Default 3; negative is off: only the context
	// and the backoff end the attempts.
	MaxAttempts int `json:"max_attempts"`
	// InitialInterval is the longest first delay. Default 100ms; negative is off: no delay at all.
	InitialInterval time.Duration `json:"initial_interval"`
	// MaxInterval is the longest delay. Default 10s; negative is refused. It does not bound what RetryAfter asks for.
	MaxInterval time.Duration `json:"max_interval"`
	// Multiplier is by how much the longest delay grows from one attempt to the next. Default 2, at least 1; negative is
	// refused.
	Multiplier float64 `json:"multiplier"`
	// Jitter is the share of each delay that is random, at most 1. Default 1, full jitter; negative is off: exact delays.
	Jitter float64 `json:"jitter"`
	// MaxRetryAfter is the longest RetryAfter to wait for: when an error asks for more, the retrier gives up. Default 30s;
	// negative is off: no bound.
	MaxRetryAfter time.Duration `json:"max_retry_after"`
}

// Validate reports every field that is out of range, or nil.
func (c Config) Validate() error {
	f := configdata.Check("retry", c.Name)
	f.Require(c.MaxInterval >= 0, "MaxInterval", c.MaxInterval, "positive, or 0 for the default")
	f.Require(c.Multiplier == 0 || c.Multiplier >= 1 && !math.IsInf(c.Multiplier, 0), "Multiplier", c.Multiplier,
		"1 or more, or 0 for the default")
	f.Require(c.Jitter <= 1, "Jitter", c.Jitter, "at most 1, 0 for the default, or negative for off")
	d := c.withDefaults()
	f.Require(d.InitialInterval <= d.MaxInterval || c.MaxInterval < 0, "InitialInterval", d.InitialInterval,
		"at most MaxInterval, which is "+d.MaxInterval.String())
	return f.Err()
}

func (c Config) withDefaults() Config {
	if c.Name == "" {
		c.Name = "retry"
	}
	c.MaxAttempts = configdata.Default(c.MaxAttempts, 3)
	c.InitialInterval = configdata.Default(c.InitialInterval, 100*time.Millisecond)
	c.MaxInterval = configdata.Default(c.MaxInterval, max(10*time.Second, c.InitialInterval))
	c.Multiplier = configdata.Default(c.Multiplier, 2)
	c.Jitter = configdata.Default(c.Jitter, 1)
	c.MaxRetryAfter = configdata.Default(c.MaxRetryAfter, 30*time.Second)
	return c
}

// MarshalJSON writes the fields that are set; a negative one is "off".
func (c Config) MarshalJSON() ([]byte, error) { return configdata.Marshal(c) }

// UnmarshalJSON reads a whole Config and refuses unknown fields. It does not validate: call Validate.
func (c *Config) UnmarshalJSON(data []byte) error { return configdata.Unmarshal(data, c) }

// delay is the pause after the given attempt, counted from 1.
func (c *Config) delay(attempt int) time.Duration {
	if c.InitialInterval < 0 {
		return 0
	}
	longest := min(float64(c.InitialInterval)*math.Pow(c.Multiplier, float64(attempt-1)), float64(c.MaxInterval))
	if c.Jitter > 0 {
		longest -= longest * c.Jitter * rand.Float64()
	}
	return time.Duration(longest)
}
