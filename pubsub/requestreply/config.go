package requestreply

import (
	"math"
	"strings"
	"time"

	"github.com/backstay-go/backstay/configdata"
	"github.com/backstay-go/backstay/pubsub"
)

// ClientConfig configures a Client. It is plain data; its JSON form has snake_case names, durations as "250ms" and "off"
// for a negative value. It is fixed once NewClient has returned. Hold it as a named field, never embed it.
type ClientConfig struct {
	// Name labels the client in metrics and errors. Default: Topic.
	Name string `json:"name"`
	// Topic is where requests go. Required.
	Topic string `json:"topic"`
	// ReplyTopic is where replies come back: Topic with ".reply" appended, which is the default, or a topic that begins
	// with that and a further dot. Clients may share one; each then receives, and skips, the replies of all. Where there
	// are many clients and topics are cheap, give each its own.
	ReplyTopic string `json:"reply_topic"`
	// ReplyGroup is for a driver without temporary groups: the name of a lasting group that this client has for itself.
	// Default: none, the client has a temporary group that ends with it.
	ReplyGroup string `json:"reply_group"`
	// Timeout is the longest that a Call waits; the context may end it earlier. Default 30s. Negative: only the context
	// ends it.
	Timeout time.Duration `json:"timeout"`
	// MaxCalls is the number of calls that can be outstanding. Default 4096. Negative: no limit.
	MaxCalls int `json:"max_calls"`
}

// MarshalJSON writes the fields that are not zero.
func (c ClientConfig) MarshalJSON() ([]byte, error) { return configdata.Marshal(c) }

// UnmarshalJSON replaces all of c; unknown fields are an error.
func (c *ClientConfig) UnmarshalJSON(b []byte) error { return configdata.Unmarshal(b, c) }

// Validate reports every fault at once.
func (c ClientConfig) Validate() error {
	d := c.withDefaults()
	f := configdata.Check("requestreply", d.Name)
	topic := pubsub.Message{Topic: c.Topic}.Validate()
	f.Require(topic == nil, "Topic", c.Topic, "letters, digits, '_' or '-', in parts separated by single dots")
	reply := pubsub.Message{Topic: d.ReplyTopic}.Validate()
	f.Require(topic != nil || reply == nil && isReplyTopic(c.Topic, d.ReplyTopic), "ReplyTopic", c.ReplyTopic,
		"a topic that is, or is below, "+replyTopic(c.Topic))
	return f.Err()
}

func (c ClientConfig) withDefaults() ClientConfig {
	if c.Name == "" {
		c.Name = c.Topic
	}
	if c.ReplyTopic == "" {
		c.ReplyTopic = replyTopic(c.Topic)
	}
	c.Timeout = configdata.Default(c.Timeout, 30*time.Second)
	c.MaxCalls = configdata.Default(c.MaxCalls, 4096)
	return c
}

// limit is MaxCalls as a number.
func (c ClientConfig) limit() int {
	if c.MaxCalls < 0 {
		return math.MaxInt
	}
	return c.MaxCalls
}

func replyTopic(topic string) string { return topic + ".reply" }

// isReplyTopic reports whether requests to topic may ask for replies to reply.
func isReplyTopic(topic, reply string) bool {
	return reply == replyTopic(topic) || strings.HasPrefix(reply, replyTopic(topic)+".")
}

// ServerConfig configures a Server. It is plain data with a JSON form as that of ClientConfig; the zero value is ready
// for use. It is fixed once NewServer has returned. Hold it as a named field, never embed it.
type ServerConfig struct {
	// Name labels the server in metrics. Default "server".
	Name string `json:"name"`
	// MaxClockSkew is how far the clock of this process may be ahead of a caller's without a request being taken for
	// late too early. Default 1s. Negative: not at all.
	MaxClockSkew time.Duration `json:"max_clock_skew"`
}

// MarshalJSON writes the fields that are not zero.
func (c ServerConfig) MarshalJSON() ([]byte, error) { return configdata.Marshal(c) }

// UnmarshalJSON replaces all of c; unknown fields are an error.
func (c *ServerConfig) UnmarshalJSON(b []byte) error { return configdata.Unmarshal(b, c) }

// Validate is nil: every value of every field means something.
func (c ServerConfig) Validate() error { return nil }

func (c ServerConfig) withDefaults() ServerConfig {
	if c.Name == "" {
		c.Name = "server"
	}
	c.MaxClockSkew = configdata.Default(c.MaxClockSkew, time.Second)
	return c
}
