package kafkapubsub

import (
	"time"

	"github.com/backstay-go/backstay/configdata"
)

// Config says how topics are kept in Kafka and how groups read them. It is plain data; the zero value is usable. Its JSON
// form has snake_case names and durations such as "500ms", and unknown fields are refused. Nothing in it can be changed
// while running.
type Config struct {
	// Name labels the driver in metrics and errors. Default: "kafka".
	Name string `json:"name"`
	// Prefix begins the name of every topic and group, so that several systems share one cluster: at most 100 letters,
	// digits, '.', '_' and '-'. Default: none, a topic has the name that services give it.
	Prefix string `json:"prefix"`
	// Topics is "create" (the default), to create topics that do not exist, or "check", to refuse them with ErrNoTopic.
	Topics string `json:"topics"`
	// Partitions is the number of lanes of a topic that is created; one that exists has its own. 1 to 1000; default 16.
	Partitions int `json:"partitions"`
	// Replicas is the number of brokers that keep a topic that is created. Default: as the cluster says. Negative is
	// refused.
	Replicas int `json:"replicas"`
	// MaxAhead bounds the records of a partition that a member holds from the first unsettled one on. Beyond it the
	// partition is paused until that one is settled. 16 to 16,384; default 4096.
	MaxAhead int `json:"max_ahead"`
	// CommitInterval is how often a member commits what has been settled; after a crash, that much comes again. Default
	// 500ms. Negative is refused.
	CommitInterval time.Duration `json:"commit_interval"`
	// SessionTimeout is how long the broker waits for a heartbeat of a member before it gives its partitions to others.
	// It must lie within the broker's bounds. Default: the Lease of the subscription, but 6s to 5m, which are the bounds
	// of most brokers. Negative is refused.
	SessionTimeout time.Duration `json:"session_timeout"`
	// RevokeTimeout is how long a rebalance waits, at most, for the handlers that run on a partition which goes to another
	// member. Default 30s. Negative: not at all.
	RevokeTimeout time.Duration `json:"revoke_timeout"`
	// PublishTimeout bounds one Publish, whose context may be shorter; what is unanswered then is in doubt. Default
	// 10s; negative is refused.
	PublishTimeout time.Duration `json:"publish_timeout"`
}

// MarshalJSON writes the fields that are not zero.
func (c Config) MarshalJSON() ([]byte, error) { return configdata.Marshal(c) }

// UnmarshalJSON replaces all of c; unknown fields are an error.
func (c *Config) UnmarshalJSON(b []byte) error { return configdata.Unmarshal(b, c) }

// Validate reports every fault at once.
func (c Config) Validate() error {
	f := configdata.Check("kafkapubsub", c.withDefaults().Name)
	f.Require(len(c.Prefix) <= maxPrefix && isTopicText(c.Prefix), "Prefix", c.Prefix, "at most 100 letters, digits, '.', '_' or '-'")
	f.Require(c.Topics == "" || c.Topics == "create" || c.Topics == "check", "Topics", c.Topics, `"create" or "check"`)
	f.Require(c.Partitions >= 0 && c.Partitions <= 1000, "Partitions", c.Partitions, "1 to 1000, or zero for the default")
	f.Require(c.Replicas >= 0 && c.Replicas <= 1000, "Replicas", c.Replicas, "1 to 1000, or zero for the cluster's default")
	f.Require(c.MaxAhead == 0 || c.MaxAhead >= 16 && c.MaxAhead <= maxAhead, "MaxAhead", c.MaxAhead, "16 to 16384, or zero for the default")
	f.Require(c.CommitInterval >= 0, "CommitInterval", c.CommitInterval, "positive, or zero for the default")
	f.Require(c.SessionTimeout >= 0, "SessionTimeout", c.SessionTimeout, "positive, or zero for the default")
	f.Require(c.PublishTimeout >= 0, "PublishTimeout", c.PublishTimeout, "positive, or zero for the default")
	return f.Err()
}

const (
	maxPrefix = 100
	// maxAhead is what the bitmap in the metadata of a commit has room for.
	maxAhead = 1 << 14
)

func (c Config) withDefaults() Config {
	if c.Name == "" {
		c.Name = "kafka"
	}
	if c.Topics == "" {
		c.Topics = "create"
	}
	c.Partitions = configdata.Default(c.Partitions, 16)
	c.MaxAhead = configdata.Default(c.MaxAhead, 4096)
	c.CommitInterval = configdata.Default(c.CommitInterval, 500*time.Millisecond)
	c.RevokeTimeout = configdata.Default(c.RevokeTimeout, 30*time.Second)
	c.PublishTimeout = configdata.Default(c.PublishTimeout, 10*time.Second)
	return c
}

// session is the session timeout for members with this lease.
func (c Config) session(lease time.Duration) time.Duration {
	if c.SessionTimeout > 0 {
		return c.SessionTimeout
	}
	return min(max(lease, 6*time.Second), 5*time.Minute)
}

func isTopicText(s string) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '_' && c != '-' && c != '.' {
			return false
		}
	}
	return true
}
