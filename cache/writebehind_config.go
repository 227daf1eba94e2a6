package cache

import (
	"time"

	"github.com/backstay-go/backstay/configdata"
)

const (
	defaultMaxBatch     = 100
	defaultMaxDelay     = 100 * time.Millisecond
	defaultMaxPending   = 10_000
	defaultWriteTimeout = 10 * time.Second
	defaultRetryMin     = 50 * time.Millisecond
	defaultRetryMax     = 10 * time.Second
)

// WriteBehindConfig is how a [WriteBehind] gathers its writes and repeats them: plain comparable data with a JSON form like
// that of [Config], which also gives the name. The zero value means the defaults. It is fixed at construction. Hold
// it as a named field; do not embed it.
type WriteBehindConfig struct {
	// MaxBatch is how many keys one call of the writer is given at most. Default: 100. Negative is refused.
	MaxBatch int `json:"max_batch"`
	// MaxDelay is how long a write waits for later ones, of its key to replace it and of other keys to share its batch; a
	// full batch does not wait. Default: 100ms. Negative: writes do not wait.
	MaxDelay time.Duration `json:"max_delay"`
	// MaxPending is how many keys may have a write that the source has not got, refused ones included. Default:
	// 10,000. Negative is refused: there is no unbounded queue.
	MaxPending int `json:"max_pending"`
	// RejectWhenFull makes Set and Delete return ErrFull while MaxPending keys are pending. Default: they block until there
	// is room, in the order of arrival. A write of a key that is pending already replaces it and needs no room.
	RejectWhenFull bool `json:"reject_when_full"`
	// WriteTimeout bounds one call of the writer. Default: 10 seconds. Negative: no bound.
	WriteTimeout time.Duration `json:"write_timeout"`
	// RetryMin is the delay after a first failure. It doubles with each further one, up to RetryMax, and is shortened at
	// random by up to half. Default: 50ms. Negative is refused.
	RetryMin time.Duration `json:"retry_min"`
	// RetryMax is the longest delay between two attempts, unless the writer's error asks for more by RetryAfter.
	// Default: 10 seconds. Negative or less than RetryMin is refused.
	RetryMax time.Duration `json:"retry_max"`
}

// Validate reports every field that cannot be used, by name, or nil. NewWriteBehind and OpenWriteBehind panic on what it
// refuses: call it first on input from outside.
func (c WriteBehindConfig) Validate() error {
	f := configdata.Check("cache: write-behind", "")
	f.Require(c.MaxBatch >= 0, "MaxBatch", c.MaxBatch, "positive, or zero for the default")
	f.Require(c.MaxPending >= 0, "MaxPending", c.MaxPending, "positive, or zero for the default")
	f.Require(c.RetryMin >= 0, "RetryMin", c.RetryMin, "positive, or zero for the default")
	filled := c.withDefaults()
	f.Require(filled.RetryMax >= max(filled.RetryMin, 0), "RetryMax", c.RetryMax, "at least RetryMin, or zero for the default")
	return f.Err()
}

// MarshalJSON writes the documented JSON form. Fields that are zero are left out.
func (c WriteBehindConfig) MarshalJSON() ([]byte, error) { return configdata.Marshal(c) }

// UnmarshalJSON reads the documented JSON form. It refuses unknown fields, and replaces the WriteBehindConfig whole: a
// field that is absent becomes zero.
func (c *WriteBehindConfig) UnmarshalJSON(b []byte) error { return configdata.Unmarshal(b, c) }

func (c WriteBehindConfig) withDefaults() WriteBehindConfig {
	c.MaxBatch = configdata.Default(c.MaxBatch, defaultMaxBatch)
	c.MaxDelay = configdata.Default(c.MaxDelay, defaultMaxDelay)
	c.MaxPending = configdata.Default(c.MaxPending, defaultMaxPending)
	c.WriteTimeout = configdata.Default(c.WriteTimeout, defaultWriteTimeout)
	c.RetryMin = configdata.Default(c.RetryMin, defaultRetryMin)
	if c.RetryMax == 0 { // a RetryMin beyond the default maximum is its own maximum
		c.RetryMax = max(defaultRetryMax, c.RetryMin)
	}
	return c
}
