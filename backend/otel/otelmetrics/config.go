package otelmetrics

import "github.com/backstay-go/backstay/configdata"

// Config says how objects are exported. Hold it as a named field.
type Config struct {
	// Name appears in errors and in the Registration's own metrics. Default "telemetry".
	Name string `json:"name"`
	// MaxSeries is how many series an object may have, labels told apart. 0 means 1000; negative is refused.
	MaxSeries int `json:"max_series"`
}

func (c Config) withDefaults() Config {
	if c.Name == "" {
		c.Name = "telemetry"
	}
	c.MaxSeries = configdata.Default(c.MaxSeries, 1000)
	return c
}

// Validate reports every fault of the Config at once, each with its field and value.
func (c Config) Validate() error {
	f := configdata.Check("otelmetrics", c.Name)
	f.Require(c.MaxSeries >= 0, "MaxSeries", c.MaxSeries, "zero or positive")
	return f.Err()
}

// MarshalJSON writes the fields that are set.
func (c Config) MarshalJSON() ([]byte, error) { return configdata.Marshal(c) }

// UnmarshalJSON replaces the whole Config; unknown fields are refused.
func (c *Config) UnmarshalJSON(b []byte) error { return configdata.Unmarshal(b, c) }
