package redispubsub

import (
	"errors"
	"fmt"
	"time"

	"github.com/backstay-go/backstay/configdata"
)

// Config says how topics are kept as Redis streams. It is plain data; the zero value is usable. Its JSON form has
// snake_case names and durations such as "24h", and unknown fields are refused. Nothing in it can be changed while
// running. All services of a topic must agree on Prefix and Lanes: a topic that differs is refused with ErrMismatch.
type Config struct {
	// Name labels the driver in metrics and errors. Default: Prefix.
	Name string `json:"name"`
	// Prefix begins the name of every key, so that several systems share one server: at most 64 letters, digits, '_'
	// and '-'. Default "backstay".
	Prefix string `json:"prefix"`
	// Lanes is the number of streams that a topic has, which is what members of an ordered group share out: more
	// members than lanes have nothing to do. It is fixed when the topic is first used. 1 to 256; default 16; negative
	// is refused.
	Lanes int `json:"lanes"`
	// MaxAge is how long a message is kept, at least, once every group has handled it. Default: for ever. Negative is
	// refused.
	MaxAge time.Duration `json:"max_age"`
	// MaxLength is the number of messages of a topic that are kept, approximately, once every group has handled them:
	// each lane keeps its share. Default: no bound. Negative is refused.
	MaxLength int64 `json:"max_length"`
	// TrimUnhandled lets MaxAge and MaxLength remove messages that some group has not handled yet, and those of topics
	// that have no group: they are lost. Refused without either. Default false: the slowest group holds everything.
	TrimUnhandled bool `json:"trim_unhandled"`
	// Replicas is the number of replicas that must have received a message before Publish returns nil, by WAIT. It
	// makes a failover less likely to lose messages and cannot rule it out. Default 0: the master alone. Negative is
	// refused.
	Replicas int `json:"replicas"`
	// ReplicaTimeout bounds the wait for Replicas; then the messages are in doubt. Default 1s; negative is refused.
	ReplicaTimeout time.Duration `json:"replica_timeout"`
}

const (
	maxPrefix = 64
	maxLanes  = 256
)

// MarshalJSON writes the fields that are not zero.
func (c Config) MarshalJSON() ([]byte, error) { return configdata.Marshal(c) }

// UnmarshalJSON replaces all of c; unknown fields are an error.
func (c *Config) UnmarshalJSON(b []byte) error { return configdata.Unmarshal(b, c) }

// Validate reports every fault at once.
func (c Config) Validate() error {
	var faults []error
	require := func(ok bool, field string, value any, want string) {
		if !ok {
			faults = append(faults, fmt.Errorf("redispubsub: Config.%s is %v: it must be %s", field, value, want))
		}
	}
	require(isToken(c.Prefix) && len(c.Prefix) <= maxPrefix, "Prefix", c.Prefix,
		fmt.Sprintf("at most %d letters, digits, '_' or '-'", maxPrefix))
	require(c.Lanes >= 0 && c.Lanes <= maxLanes, "Lanes", c.Lanes, "1 to 256, or zero for the default")
	require(c.MaxAge >= 0, "MaxAge", c.MaxAge, "positive, or zero for no limit")
	require(c.MaxLength >= 0, "MaxLength", c.MaxLength, "positive, or zero for no limit")
	require(!c.TrimUnhandled || c.MaxAge > 0 || c.MaxLength > 0, "TrimUnhandled", c.TrimUnhandled, "false without MaxAge and MaxLength")
	require(c.Replicas >= 0, "Replicas", c.Replicas, "positive, or zero for none")
	require(c.ReplicaTimeout >= 0, "ReplicaTimeout", c.ReplicaTimeout, "positive, or zero for the default")
	return errors.Join(faults...)
}

// isToken reports whether s has only letters, digits, '_' and '-'.
func isToken(s string) bool {
	for _, c := range []byte(s) {
		alnum := '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !alnum && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

func (c Config) withDefaults() Config {
	if c.Prefix == "" {
		c.Prefix = "backstay"
	}
	if c.Name == "" {
		c.Name = c.Prefix
	}
	c.Lanes = configdata.Default(c.Lanes, 16)
	c.ReplicaTimeout = configdata.Default(c.ReplicaTimeout, time.Second)
	return c
}
