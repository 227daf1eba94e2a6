package saga

import (
	"fmt"
	"time"

	"github.com/backstay-go/backstay/configdata"
)

// Config sets up a Runner. It is plain data: the zero value means the defaults, JSON writes it in snake_case with
// durations as "250ms". Hold it as a named field; do not embed it.
type Config struct {
	// Name names the runner in errors, logs and metrics; empty means "saga". Fixed once the runner is made.
	Name string `json:"name"`
	// Concurrency is how many instances are worked on at once; 0 means 16. Negative is refused. Live.
	Concurrency int `json:"concurrency"`
	// Lease is how long an instance stays with a node that has fallen silent; 0 means 10s, and less than 10ms is refused.
	// It is renewed while an attempt runs and so does not bound attempts. Takes effect at the next Run.
	Lease time.Duration `json:"lease"`
	// DrainTimeout is how long running attempts may take to finish after Run was cancelled, before their contexts are
	// cancelled too; 0 means 10s, negative means as long as they like. Live until Run drains.
	DrainTimeout time.Duration `json:"drain_timeout"`
	// PollMax is the longest pause between two looks into an idle store, and so how late a runner may notice what another
	// process started; 0 means 500ms. Negative is refused. Live.
	PollMax time.Duration `json:"poll_max"`
	// Retention is how long an instance is kept after it has ended, by the store's clock; then a runner that is in Run deletes it with its
	// history, once a minute and a thousand at a time. It must be longer than the time over which a start may be repeated: a deleted
	// ID can be started anew. Instances of all definitions are deleted, but for those that are stuck and those whose parent has not
	// ended. 0 means that nothing is deleted; negative is refused, and so is a store that is no Purger. Live.
	Retention time.Duration `json:"retention"`
}

// pollMin is the first pause after something was found.
const pollMin = 5 * time.Millisecond

func (c Config) withDefaults() Config {
	if c.Name == "" {
		c.Name = "saga"
	}
	c.Concurrency = configdata.Default(c.Concurrency, 16)
	c.Lease = configdata.Default(c.Lease, 10*time.Second)
	c.DrainTimeout = configdata.Default(c.DrainTimeout, 10*time.Second)
	c.PollMax = configdata.Default(c.PollMax, 500*time.Millisecond)
	return c
}

// Validate reports every fault of the Config at once, each with its field and value.
func (c Config) Validate() error {
	f := configdata.Check("saga", c.Name)
	f.Require(c.Concurrency >= 0, "Concurrency", c.Concurrency, "zero or positive")
	f.Require(c.Lease == 0 || c.Lease >= 10*time.Millisecond, "Lease", c.Lease, "zero or at least 10ms")
	f.Require(c.PollMax >= 0, "PollMax", c.PollMax, "zero or positive")
	f.Require(c.Retention >= 0, "Retention", c.Retention, "zero or positive")
	return f.Err()
}

// suits reports a field that asks for what the store cannot do.
func (c Config) suits(store Store) error {
	if _, can := store.(Purger); c.Retention > 0 && !can {
		return fmt.Errorf("saga %q: Config.Retention is %v, and %T is no Purger", c.Name, c.Retention, store)
	}
	return nil
}

// MarshalJSON writes the fields that are set.
func (c Config) MarshalJSON() ([]byte, error) { return configdata.Marshal(c) }

// UnmarshalJSON replaces the whole Config; unknown fields are refused.
func (c *Config) UnmarshalJSON(b []byte) error { return configdata.Unmarshal(b, c) }
