package cache

import (
	"math"
	"time"

	"github.com/backstay-go/backstay/configdata"
)

const (
	defaultMaxEntries   = 10_000
	defaultTTL          = 5 * time.Minute
	defaultTTLJitter    = 0.1
	defaultRetryDelay   = 100 * time.Millisecond
	defaultLoadTimeout  = 10 * time.Second
	defaultLocalTTL     = 10 * time.Second
	defaultStoreTimeout = 250 * time.Millisecond
)

// Config is the size and the times of a cache: plain comparable data with a JSON form, in which durations are
// strings such as "250ms" and a negative value is "off". The zero value means the defaults. Hold it as a named
// field; do not embed it. All fields are live but StoreTimeout.
type Config struct {
	// Name is what errors, Describe and telemetry call the cache. Default: empty.
	Name string `json:"name"`
	// MaxEntries is how many entries the memory keeps before it evicts those least likely to be used again. Default:
	// 10,000, or no limit with MaxWeight. Negative is refused. A smaller value evicts at once.
	MaxEntries int `json:"max_entries"`
	// MaxWeight limits the sum of what WithWeight says the entries weigh. Required with that option, in place of
	// MaxEntries, and refused without it. A smaller value evicts at once.
	MaxWeight int `json:"max_weight"`
	// TTL is how long an entry is fresh, counted from its load or Set. Default: 5 minutes. Negative: until evicted.
	// Entries keep the TTL that they were stored with.
	TTL time.Duration `json:"ttl"`
	// TTLJitter is the share by which the TTL of each entry is shortened at most, at random, so that entries
	// which were stored together are not loaded together. Default: 0.1. Negative: none. One and more is refused.
	TTLJitter float64 `json:"ttl_jitter"`
	// NegativeTTL is how long it is remembered that the source has nothing under a key, which the loader says by an
	// error that is [ErrNotFound]. Default, and negative: not at all.
	NegativeTTL time.Duration `json:"negative_ttl"`
	// RefreshAhead is how long before the end of its TTL an entry that is read is loaded again in the background,
	// while the old value is served; with a TTL shortened by the jitter, it is shortened in proportion. It must be
	// less than TTL. Default, and negative: off.
	RefreshAhead time.Duration `json:"refresh_ahead"`
	// EarlyRefresh is the factor β of probabilistic early refresh: an entry that is read is loaded again in the
	// background when -β·δ·ln(random) is at least what is left of its TTL, where δ is how long its load took. One is
	// a good value. Default, and negative: off.
	EarlyRefresh float64 `json:"early_refresh"`
	// StaleIfError is how long past the end of its TTL an entry may still be served when loading it again fails.
	// Default, and negative: not at all.
	StaleIfError time.Duration `json:"stale_if_error"`
	// RetryDelay is how long the source is left alone after a failed load of a key whose old entry can be served. It
	// doubles, with jitter, with each further failure, up to the TTL. Default: 100 ms. Negative: off.
	RetryDelay time.Duration `json:"retry_delay"`
	// LoadTimeout bounds one load, whatever the contexts of its callers say; in an [Aside], how long a lease is
	// good for. Default: 10 seconds. Negative: no bound.
	LoadTimeout time.Duration `json:"load_timeout"`
	// LocalTTL is how long the memory serves an entry without asking the store given by WithL2, and so the bound on
	// how old an entry can be when a notice of its change is lost. At most TTL. Default: 10 seconds. Negative: TTL.
	LocalTTL time.Duration `json:"local_ttl"`
	// StoreTimeout bounds each call of the store. Default: 250 ms. Negative: only the caller's context does.
	// Not live.
	StoreTimeout time.Duration `json:"store_timeout"`
}

// Validate reports every field that cannot be used, by name, or nil. New panics on what it refuses and Reconfigure
// returns it: call it first on input from outside.
func (c Config) Validate() error {
	f := configdata.Check("cache", c.Name)
	d := c.withDefaults()
	f.Require(c.MaxEntries >= 0, "MaxEntries", c.MaxEntries, "positive, or zero for the default")
	f.Require(c.MaxWeight >= 0, "MaxWeight", c.MaxWeight, "positive, or zero where there is no WithWeight")
	f.Require(c.MaxWeight == 0 || c.MaxEntries == 0, "MaxEntries", c.MaxEntries, "zero where MaxWeight is set")
	f.Require(c.TTLJitter < 1, "TTLJitter", c.TTLJitter, "less than one, or negative for none")
	f.Require(c.EarlyRefresh <= math.MaxFloat64, "EarlyRefresh", c.EarlyRefresh, "a number")
	f.Require(d.TTL < 0 || c.RefreshAhead < d.TTL, "RefreshAhead", c.RefreshAhead, "less than TTL")
	return f.Err()
}

// validateFor is Validate with what depends on the options.
func (c Config) validateFor(weighted bool) error {
	if err := c.Validate(); err != nil {
		return err
	}
	f := configdata.Check("cache", c.Name)
	f.Require(!weighted || c.MaxWeight > 0, "MaxWeight", c.MaxWeight, "positive, because WithWeight is given")
	f.Require(weighted || c.MaxWeight == 0, "MaxWeight", c.MaxWeight, "zero, or WithWeight given")
	return f.Err()
}

// MarshalJSON writes the documented JSON form. Fields that are zero are left out.
func (c Config) MarshalJSON() ([]byte, error) { return configdata.Marshal(c) }

// UnmarshalJSON reads the documented JSON form. It refuses unknown fields, and replaces the Config whole: a field
// that is absent becomes zero.
func (c *Config) UnmarshalJSON(b []byte) error { return configdata.Unmarshal(b, c) }

func (c Config) withDefaults() Config {
	if c.MaxWeight == 0 {
		c.MaxEntries = configdata.Default(c.MaxEntries, defaultMaxEntries)
	}
	c.TTL = configdata.Default(c.TTL, defaultTTL)
	c.TTLJitter = configdata.Default(c.TTLJitter, defaultTTLJitter)
	c.NegativeTTL = configdata.Default(c.NegativeTTL, -1)
	c.RefreshAhead = configdata.Default(c.RefreshAhead, -1)
	c.EarlyRefresh = configdata.Default(c.EarlyRefresh, -1)
	c.StaleIfError = configdata.Default(c.StaleIfError, -1)
	c.RetryDelay = configdata.Default(c.RetryDelay, defaultRetryDelay)
	c.LoadTimeout = configdata.Default(c.LoadTimeout, defaultLoadTimeout)
	c.LocalTTL = configdata.Default(c.LocalTTL, defaultLocalTTL)
	if c.TTL > 0 && (c.LocalTTL < 0 || c.LocalTTL > c.TTL) {
		c.LocalTTL = c.TTL
	}
	c.StoreTimeout = configdata.Default(c.StoreTimeout, defaultStoreTimeout)
	return c
}
