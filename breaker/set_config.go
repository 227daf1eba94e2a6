package breaker

import (
	"errors"
	"fmt"
	"time"

	"github.com/backstay-go/backstay/configdata"
)

// SetConfig is the data of a [Set]: plain, comparable, JSON as that of [Config]. The zero SetConfig is valid and means the
// defaults. Every field may be changed while running by [Set.Reconfigure].
type SetConfig struct {
	// Name appears in metrics, and before the key in the names of the breakers. Default "breaker".
	Name string `json:"name"`
	// Each is the Config of every key's breaker. Its Name must be empty: the breaker of the key acme is called Name[acme].
	Each Config `json:"each"`
	// MaxKeys is how many breakers are kept. Default 10,000; negative is refused. One more key takes the place of one that
	// was not asked for again lately, a closed one if there is one near.
	MaxKeys int `json:"max_keys"`
	// Idle is how long a key must not have been asked for before its breaker may be dropped. Default 10m; negative is off.
	Idle time.Duration `json:"idle"`
	// MaxOpenRatio is the share of the keys, from just above 0 to 1, that may be open or half-open at once; one always may.
	// A breaker beyond it stays closed however its calls fail. Default off, every key for itself; negative is off.
	MaxOpenRatio float64 `json:"max_open_ratio"`
}

// Validate reports every field that is out of range, or nil.
func (c SetConfig) Validate() error {
	f := configdata.Check("breaker", c.Name)
	f.Require(c.Each.Name == "", "Each.Name", c.Each.Name, "empty: the set's Name and the key are used")
	f.Require(c.MaxKeys >= 0, "MaxKeys", c.MaxKeys, "positive, or 0 for the default")
	f.Require(c.MaxOpenRatio <= 1, "MaxOpenRatio", c.MaxOpenRatio, "at most 1, or negative for off")
	each := c.Each
	each.Name = c.Name
	return errors.Join(f.Err(), each.Validate())
}

func (c SetConfig) withDefaults() SetConfig {
	if c.Name == "" {
		c.Name = "breaker"
	}
	c.Each = c.Each.withDefaults()
	c.Each.Name = ""
	c.MaxKeys = configdata.Default(c.MaxKeys, 10_000)
	c.Idle = configdata.Default(c.Idle, 10*time.Minute)
	c.MaxOpenRatio = configdata.Default(c.MaxOpenRatio, -1)
	return c
}

// named is the Config of the breaker of key.
func (c *SetConfig) named(key any) Config {
	each := c.Each
	each.Name = fmt.Sprintf("%s[%v]", c.Name, key)
	return each
}

// MarshalJSON writes the fields that are set.
func (c SetConfig) MarshalJSON() ([]byte, error) { return configdata.Marshal(c) }

// UnmarshalJSON reads a whole SetConfig and refuses unknown fields. It does not validate: call Validate.
func (c *SetConfig) UnmarshalJSON(data []byte) error { return configdata.Unmarshal(data, c) }
