package rediscache

import (
	"errors"
	"fmt"
	"strings"

	"github.com/backstay-go/backstay/configdata"
)

// Config says where a Store keeps its entries. It is plain data; only Prefix is required. Its JSON form has snake_case
// names, and unknown fields are refused. Nothing in it can be changed while running. All processes that share
// entries must agree on Prefix, on the codec and on how keys are written.
type Config struct {
	// Name labels the store in metrics and errors. Default: Prefix.
	Name string `json:"name"`
	// Prefix begins the name of every key in Redis, so that caches do not mix: 1 to 200 bytes without '{' and '}'.
	// Change it when the encoding of values changes. Required.
	Prefix string `json:"prefix"`
	// MaxValueSize bounds an encoded value, in bytes. A larger one is not kept: it is as if it had been evicted at
	// once. Default 1 MiB; at most 512 MiB, which is Redis's own bound; negative is refused.
	MaxValueSize int `json:"max_value_size"`
}

const (
	maxPrefix    = 200
	maxValueSize = 512<<20 - headerSize
)

// MarshalJSON writes the fields that are not zero.
func (c Config) MarshalJSON() ([]byte, error) { return configdata.Marshal(c) }

// UnmarshalJSON replaces all of c; unknown fields are an error.
func (c *Config) UnmarshalJSON(b []byte) error { return configdata.Unmarshal(b, c) }

// Validate reports every fault at once.
func (c Config) Validate() error {
	var faults []error
	if c.Prefix == "" || len(c.Prefix) > maxPrefix || strings.ContainsAny(c.Prefix, "{}") {
		faults = append(faults, fmt.Errorf("rediscache: Config.Prefix is %q: it must be 1 to %d bytes without braces",
			c.Prefix, maxPrefix))
	}
	if c.MaxValueSize < 0 || c.MaxValueSize > maxValueSize {
		faults = append(faults, fmt.Errorf("rediscache: Config.MaxValueSize is %d: it must be 1 to %d, or zero for 1 MiB",
			c.MaxValueSize, maxValueSize))
	}
	return errors.Join(faults...)
}

func (c Config) withDefaults() Config {
	if c.Name == "" {
		c.Name = c.Prefix
	}
	if c.MaxValueSize == 0 {
		c.MaxValueSize = 1 << 20
	}
	return c
}
