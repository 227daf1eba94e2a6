package rabbitpubsub

import (
	"slices"
	"time"

	"github.com/backstay-go/backstay/configdata"
)

// Config says how topics are kept as exchanges and queues. It is plain data; the zero value is usable. Its JSON form has
// snake_case names and durations such as "5s", and unknown fields are refused. Nothing in it can be changed while
// running. All services of a topic must agree on Prefix, Lanes, MaxLength and Replicas: what is declared already in
// another way is refused with ErrMismatch, never altered.
type Config struct {
	// Name labels the driver in metrics and errors. Default: Prefix.
	Name string `json:"name"`
	// Prefix begins the name of every exchange and queue, so that several systems share one virtual host: at most 64
	// letters, digits, '_' and '-'. Default "backstay".
	Prefix string `json:"prefix"`
	// Lanes is the number of parts that a topic has for ordered subscriptions, each a queue per ordered group: what lost
	// its lease, or its member, delays the other keys of its lane. It is fixed when the topic is declared. 1 to 256; default 4;
	// negative is refused.
	Lanes int `json:"lanes"`
	// Topology is "declare" (the default) to make exchanges, queues and bindings that are not there, "check" to fail
	// when one is missing and make none, or "trust" to use them unseen, for services without the right to configure.
	Topology string `json:"topology"`
	// Unroutable says what becomes of a message whose topic has no group: "refuse" (the default) fails its Publish with
	// ErrUnroutable, "drop" accepts it.
	Unroutable string `json:"unroutable"`
	// Replicas is the number of servers that keep each queue. It is fixed when the queue is declared. Default: the
	// broker's choice. Negative is refused.
	Replicas int `json:"replicas"`
	// MaxLength bounds the messages of each queue. A full one fails Publish with ErrRejected; nothing is dropped to make
	// room. It is fixed when the queue is declared. Default: no bound. Negative is refused.
	MaxLength int `json:"max_length"`
	// MaxPayload is the longest payload in bytes; a longer one is refused before it is sent, where the broker would end
	// the channel. Default 16 MiB, which every version takes. Negative is refused.
	MaxPayload int `json:"max_payload"`
	// Window is the number of messages that are published and not yet confirmed, over all calls of Publish. Default
	// 1000. Negative is refused.
	Window int `json:"window"`
	// PublishTimeout bounds one Publish, whose context may be shorter; what is unanswered then is in doubt. Default 5s;
	// negative is refused.
	PublishTimeout time.Duration `json:"publish_timeout"`
	// Prefetch is the number of messages that a fast unordered consumer holds; a slow one holds as many as it can
	// handle, so that the other members have the rest. An ordered one holds the LaneDepth of its subscription per lane.
	// 1 to 65535; default 1000; negative is refused.
	Prefetch int `json:"prefetch"`
	// Heartbeat is the interval of signs of life on a connection. The broker takes a member that is stopped, or cut off,
	// for dead after two to three of them, whatever its lease. A value in the URL counts before it. Default 10s, at
	// least 1s, in whole seconds.
	Heartbeat time.Duration `json:"heartbeat"`
}

// MarshalJSON writes the fields that are not zero.
func (c Config) MarshalJSON() ([]byte, error) { return configdata.Marshal(c) }

// UnmarshalJSON replaces all of c; unknown fields are an error.
func (c *Config) UnmarshalJSON(b []byte) error { return configdata.Unmarshal(b, c) }

// Validate reports every fault at once.
func (c Config) Validate() error {
	f := configdata.Check("rabbitpubsub", c.withDefaults().Name)
	const positive = "positive, or zero for the default"
	f.Require(c.Prefix == "" || isName(c.Prefix) && len(c.Prefix) <= 64, "Prefix", c.Prefix, "at most 64 letters, digits, '_' or '-'")
	f.Require(c.Lanes >= 0 && c.Lanes <= 256, "Lanes", c.Lanes, "1 to 256, or zero for the default")
	f.Require(slices.Contains([]string{"", "declare", "check", "trust"}, c.Topology), "Topology", c.Topology, `"declare", "check" or "trust"`)
	f.Require(slices.Contains([]string{"", "refuse", "drop"}, c.Unroutable), "Unroutable", c.Unroutable, `"refuse" or "drop"`)
	f.Require(c.Replicas >= 0, "Replicas", c.Replicas, positive)
	f.Require(c.MaxLength >= 0, "MaxLength", c.MaxLength, "positive, or zero for no bound")
	f.Require(c.MaxPayload >= 0, "MaxPayload", c.MaxPayload, positive)
	f.Require(c.Window >= 0, "Window", c.Window, positive)
	f.Require(c.PublishTimeout >= 0, "PublishTimeout", c.PublishTimeout, positive)
	f.Require(c.Prefetch >= 0 && c.Prefetch <= maxPrefetch, "Prefetch", c.Prefetch, "1 to 65535, or zero for the default")
	f.Require(c.Heartbeat == 0 || c.Heartbeat >= time.Second && c.Heartbeat%time.Second == 0, "Heartbeat", c.Heartbeat,
		"whole seconds, or zero for the default")
	return f.Err()
}

// maxPrefetch is the largest that the protocol can say.
const maxPrefetch = 1<<16 - 1

func (c Config) withDefaults() Config {
	if c.Prefix == "" {
		c.Prefix = "backstay"
	}
	if c.Name == "" {
		c.Name = c.Prefix
	}
	if c.Topology == "" {
		c.Topology = "declare"
	}
	if c.Unroutable == "" {
		c.Unroutable = "refuse"
	}
	c.Lanes = configdata.Default(c.Lanes, 4)
	c.MaxPayload = configdata.Default(c.MaxPayload, 16<<20)
	c.Window = configdata.Default(c.Window, 1000)
	c.PublishTimeout = configdata.Default(c.PublishTimeout, 5*time.Second)
	c.Prefetch = configdata.Default(c.Prefetch, 1000)
	c.Heartbeat = configdata.Default(c.Heartbeat, 10*time.Second)
	return c
}

// isName reports whether s is not empty and has only ASCII letters, digits, '_' and '-'.
func isName(s string) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '_' && c != '-' {
			return false
		}
	}
	return s != ""
}
