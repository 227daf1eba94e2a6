package cache

import (
	"time"

	"github.com/backstay-go/backstay/internal/configdata"
)

const (
	defaultMaxEntries  = 10_000
	defaultTTL         = 5 * time.Minute
	defaultLoadTimeout = 10 * time.Second
)

// Config is the size and the times of a [Cache]: plain comparable data with a JSON form, in which durations are
// strings such as "250ms" and a negative value is "off". The zero value means the defaults. Hold it as a named
// field; do not embed it.
type Config struct {
	// Name is what errors, Describe and telemetry call the cache. Default: empty. Live.
	Name string `json:"name"`
	// MaxEntries is how many entries the built-in store keeps before it evicts those least likely to be used again.
	// It has no effect on a store given by WithStore. Default: 10,000. Negative is refused. Live: a
	// smaller value evicts at once.
	MaxEntries int `json:"max_entries"`
	// TTL is how long an entry is served, counted from its load or Set, exact to ten milliseconds. Default: 5
	// minutes. Negative: until evicted. Live, for entries stored afterwards.
	TTL time.Duration `json:"ttl"`
	// LoadTimeout bounds one call of the loader, whatever the contexts of its callers say. Default: 10 seconds.
	// Negative: no bound. Live, for loads that begin afterwards.
	LoadTimeout time.Duration `json:"load_timeout"`
}

// Validate reports every field that cannot be used, by name, or nil. New panics on what it refuses and Reconfigure
// returns it: call it first on input from outside.
func (c Config) Validate() error {
	f := configdata.Check("cache", c.Name)
	f.Require(c.MaxEntries >= 0, "MaxEntries", c.MaxEntries, "positive, or zero for the default")
	return f.Err()
}

// MarshalJSON writes the documented JSON form. Fields that are zero are left out.
func (c Config) MarshalJSON() ([]byte, error) { return configdata.Marshal(c) }

// UnmarshalJSON reads the documented JSON form. It refuses unknown fields, and replaces the Config whole: a field
// that is absent becomes zero.
func (c *Config) UnmarshalJSON(b []byte) error { return configdata.Unmarshal(b, c) }

func (c Config) withDefaults() Config {
	c.MaxEntries = configdata.Default(c.MaxEntries, defaultMaxEntries)
	c.TTL = configdata.Default(c.TTL, defaultTTL)
	c.LoadTimeout = configdata.Default(c.LoadTimeout, defaultLoadTimeout)
	return c
}

// Option gives a [Cache] what data cannot express. Options are fixed at construction.
type Option func(*options)

type options struct {
	foreign bool // WithStore was given
	store   any  // a Store[K, V]: Option has no type parameters, so that nobody has to spell them out
}

// WithStore keeps the entries in s instead of the built-in store. The caller closes s, after the cache. New panics when
// s is nil or holds other types than the loader.
func WithStore[K comparable, V any](s Store[K, V]) Option {
	return func(o *options) { o.store, o.foreign = s, true }
}
