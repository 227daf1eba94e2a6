package outbox

import (
	"time"

	"github.com/backstay-go/backstay/configdata"
)

// RelayConfig describes a Relay. Every field may be changed while it runs.
type RelayConfig struct {
	// Name appears in errors and telemetry. Default "relay".
	Name string `json:"name"`
	// Batch is how many messages are fetched and settled together. Default 500; negative is refused.
	Batch int `json:"batch"`
	// Lease is how long a relay that has died keeps its keys from the others. It is renewed every third of it. Default 10s; at
	// least 10ms.
	Lease time.Duration `json:"lease"`
	// PublishTimeout bounds one call of the publisher. Default, and at most, half of Lease, so that a lease outlives the calls
	// made under it.
	PublishTimeout time.Duration `json:"publish_timeout"`
	// PollMax is the longest pause between looks at the store, and between tries while store or publisher fail; it starts at 5ms
	// and doubles. Default 1s; at least 5ms. Leases are renewed on time however long it is.
	PollMax time.Duration `json:"poll_max"`
	// MaxAttempts is how many failures that speak against a message park it. Default 10; negative never parks.
	MaxAttempts int `json:"max_attempts"`
	// BackoffInitial is the delay of a key after the first such failure; it doubles with each, with jitter. Default 100ms.
	BackoffInitial time.Duration `json:"backoff_initial"`
	// BackoffMax bounds the delay. Default 30s; not below BackoffInitial.
	BackoffMax time.Duration `json:"backoff_max"`
}

// MarshalJSON writes snake_case, with durations as text and "off" for a negative number.
func (c RelayConfig) MarshalJSON() ([]byte, error) { return configdata.Marshal(c) }

// UnmarshalJSON reads what MarshalJSON writes and refuses unknown fields.
func (c *RelayConfig) UnmarshalJSON(b []byte) error { return configdata.Unmarshal(b, c) }

// Validate reports every fault, naming field and value.
func (c RelayConfig) Validate() error {
	d := c.withDefaults()
	f := configdata.Check("outbox", c.Name)
	f.Require(d.Batch >= 1 && d.Batch <= 100_000, "Batch", c.Batch, "0 (500) or 1 to 100000")
	f.Require(d.Lease >= 10*time.Millisecond, "Lease", c.Lease, "0 (10s) or at least 10ms")
	f.Require(d.PublishTimeout > 0 && d.PublishTimeout <= d.Lease/2, "PublishTimeout", c.PublishTimeout, "0 or up to half of Lease")
	f.Require(d.PollMax >= pollMin, "PollMax", c.PollMax, "0 (1s) or at least 5ms")
	f.Require(d.BackoffInitial > 0, "BackoffInitial", c.BackoffInitial, "0 (100ms) or positive")
	f.Require(d.BackoffMax > 0 && d.BackoffMax >= d.BackoffInitial, "BackoffMax", c.BackoffMax, "0 (30s) or at least BackoffInitial")
	return f.Err()
}

func (c RelayConfig) withDefaults() RelayConfig {
	if c.Name == "" {
		c.Name = "relay"
	}
	c.Batch = configdata.Default(c.Batch, 500)
	c.Lease = configdata.Default(c.Lease, 10*time.Second)
	c.PublishTimeout = configdata.Default(c.PublishTimeout, c.Lease/2)
	c.PollMax = configdata.Default(c.PollMax, time.Second)
	c.MaxAttempts = configdata.Default(c.MaxAttempts, 10)
	c.BackoffInitial = configdata.Default(c.BackoffInitial, 100*time.Millisecond)
	c.BackoffMax = configdata.Default(c.BackoffMax, 30*time.Second)
	return c
}
