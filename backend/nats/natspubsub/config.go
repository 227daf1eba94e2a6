package natspubsub

import (
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/backstay-go/backstay/configdata"
)

// Config says how topics are kept as JetStream streams. It is plain data; the zero value is usable. Its JSON form has
// snake_case names and durations such as "24h", and unknown fields are refused. Nothing in it can be changed while
// running. All services of a topic must agree on Prefix, Lanes and Storage: a stream that differs is refused with
// ErrMismatch, never altered.
type Config struct {
	// Name labels the driver in metrics and errors. Default: Prefix.
	Name string `json:"name"`
	// Prefix is the first token of every subject and begins the name of every stream, so that several systems share
	// one account: at most 64 letters, digits, '_' and '-'. Default "backstay".
	Prefix string `json:"prefix"`
	// Lanes is the number of parts that a topic has for ordered subscriptions: at most that many members of an ordered
	// group have something to do. It is fixed when the stream is created. 1 to 256; default 16; negative is refused.
	Lanes int `json:"lanes"`
	// Storage is "file" (the default) or "memory", whose messages end with the server.
	Storage string `json:"storage"`
	// Replicas is the number of servers that keep each message, 1 to 5; it needs as many servers in the cluster.
	// Default: what the stream has, or 1 when it is created.
	Replicas int `json:"replicas"`
	// SyncAlways declares that the servers run with sync_interval: always. A client cannot see that setting: it is
	// believed, and said in Capabilities. Refused with memory storage. Default false.
	SyncAlways bool `json:"sync_always"`
	// MaxAge is how long a message is kept, handled or not. Default: what the stream has, or for ever when it is
	// created. Negative is refused.
	MaxAge time.Duration `json:"max_age"`
	// MaxBytes bounds a stream; a full one refuses messages until MaxAge has freed space. The server holds no messages
	// back for their DeliverAt in such a stream. Default: what the stream has, or no bound when it is created. Negative
	// is refused.
	MaxBytes int64 `json:"max_bytes"`
	// MaxPending bounds the messages of an unordered group that are delivered and not settled, over all its members
	// and with those that wait out the delay of a Nack. At the bound nothing new is delivered. Default 10,000;
	// negative is refused.
	MaxPending int `json:"max_pending"`
	// PublishTimeout bounds one Publish, whose context may be shorter; what is unanswered then is in doubt. Default
	// 5s; negative is refused.
	PublishTimeout time.Duration `json:"publish_timeout"`
}

// MarshalJSON writes the fields that are not zero.
func (c Config) MarshalJSON() ([]byte, error) { return configdata.Marshal(c) }

// UnmarshalJSON replaces all of c; unknown fields are an error.
func (c *Config) UnmarshalJSON(b []byte) error { return configdata.Unmarshal(b, c) }

// Validate reports every fault at once.
func (c Config) Validate() error {
	var faults []error
	require := func(ok bool, field string, value any, want string) {
		if !ok {
			faults = append(faults, fmt.Errorf("natspubsub: Config.%s is %v: it must be %s", field, value, want))
		}
	}
	require(c.Prefix == "" || isToken(c.Prefix) && len(c.Prefix) <= maxPrefix, "Prefix", c.Prefix,
		fmt.Sprintf("at most %d letters, digits, '_' or '-'", maxPrefix))
	require(c.Lanes >= 0 && c.Lanes <= 256, "Lanes", c.Lanes, "1 to 256, or zero for the default")
	require(c.Storage == "" || c.Storage == "file" || c.Storage == "memory", "Storage", c.Storage, `"file" or "memory"`)
	require(c.Replicas >= 0 && c.Replicas <= 5, "Replicas", c.Replicas, "1 to 5, or zero for the default")
	require(!c.SyncAlways || c.Storage != "memory", "SyncAlways", c.SyncAlways, "false with memory storage")
	require(c.MaxAge >= 0, "MaxAge", c.MaxAge, "positive, or zero for no limit")
	require(c.MaxBytes >= 0, "MaxBytes", c.MaxBytes, "positive, or zero for no limit")
	require(c.MaxPending >= 0, "MaxPending", c.MaxPending, "positive, or zero for the default")
	require(c.PublishTimeout >= 0, "PublishTimeout", c.PublishTimeout, "positive, or zero for the default")
	return errors.Join(faults...)
}

func (c Config) withDefaults() Config {
	if c.Prefix == "" {
		c.Prefix = "backstay"
	}
	if c.Name == "" {
		c.Name = c.Prefix
	}
	if c.Storage == "" {
		c.Storage = "file"
	}
	if c.Lanes == 0 {
		c.Lanes = 16
	}
	if c.MaxPending == 0 {
		c.MaxPending = 10_000
	}
	if c.PublishTimeout == 0 {
		c.PublishTimeout = 5 * time.Second
	}
	return c
}

func (c Config) storage() jetstream.StorageType {
	if c.Storage == "memory" {
		return jetstream.MemoryStorage
	}
	return jetstream.FileStorage
}

// durability is Capabilities.Durability in words.
func (c Config) durability() string {
	switch {
	case c.Storage == "memory":
		return "in the memory of the server"
	case c.SyncAlways:
		return "fsynced by each acknowledging server, as declared by SyncAlways"
	default:
		return "written to the server's operating system, which is told to fsync every two minutes unless configured otherwise"
	}
}
