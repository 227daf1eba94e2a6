package pubsub

import (
	"math/rand/v2"
	"time"

	"github.com/backstay-go/backstay/configdata"
)

// Subscription configures a consumer: which messages it takes, for which group, and how it treats them. It is plain
// data; its JSON form has snake_case names, durations as "250ms" and "off" for a negative value. Topic and Group are
// required. Fields marked live can be changed with Consumer.Reconfigure, the others are fixed once open.
type Subscription struct {
	// Name labels the consumer in metrics and errors. Default: Topic, a slash, Group.
	Name string `json:"name"`
	// Topic is the one topic to take messages of. Required.
	Topic string `json:"topic"`
	// Group is the name that competing consumers share: each message goes to one member of every group. Letters,
	// digits, '_' and '-'. Required.
	Group string `json:"group"`
	// Ordered asks for the messages of a key to be handled one after the other in publish order. Default: false, all
	// messages are independent. A driver without lanes refuses it.
	Ordered bool `json:"ordered"`
	// Start says where a group begins that did not exist: "end" (the default) with messages published from then on,
	// "start" with all that the broker retains, a time in the form of RFC 3339 with those of them that were published
	// at that time or later. A group that exists goes on where it was.
	Start string `json:"start"`
	// Temporary makes the group end with its consumer, together with what it has not handled, and soon after its
	// process if that dies. Its Group may be empty, which makes one of its own. It has no dead-letter topic: a message
	// at the end of its attempts is dropped, counted and told to OnDeadLetter. Default: false.
	Temporary bool `json:"temporary"`
	// Concurrency is the number of handlers that run at a time. Default 8. Negative is refused. Live.
	Concurrency int `json:"concurrency"`
	// MaxAttempts is the number of attempts after which a failing message goes to the dead-letter topic; a rejected call
	// is no attempt. Default 10. Negative: no limit. Live.
	MaxAttempts int `json:"max_attempts"`
	// BackoffInitial is the upper bound of the random delay after the first failure; it doubles with every further one.
	// Default 100ms. Negative: no delay. Live.
	BackoffInitial time.Duration `json:"backoff_initial"`
	// BackoffMax bounds the delay. Default 30s, or BackoffInitial if that is longer. Negative is refused. Live.
	BackoffMax time.Duration `json:"backoff_max"`
	// HandleTimeout is how long a handler may take: then its context ends, and its lease is extended no more. Default
	// 30s. Negative: no limit. Live, from the next message on.
	HandleTimeout time.Duration `json:"handle_timeout"`
	// Lease is how long the broker waits for a sign of life before it gives a message to another member. The consumer
	// extends leases after a third of it. Default 30s. Negative is refused.
	Lease time.Duration `json:"lease"`
	// DrainTimeout is the grace that running handlers get when Run is asked to stop. Default 30s. Negative: no limit.
	// Live.
	DrainTimeout time.Duration `json:"drain_timeout"`
	// HoldKey is for ordered subscriptions: once a message has become a dead letter, those of its key that come after
	// it follow, so that none is handled before it, until one of them has been redriven and handled, or the lane gets
	// another member. At most 10,000 keys are held. Default: false, the key goes on.
	HoldKey bool `json:"hold_key"`
	// BatchSize is the number of messages that RunBatch hands over at a time, at most. Default 100. Negative is
	// refused. Live.
	BatchSize int `json:"batch_size"`
	// BatchWait is how long RunBatch waits for more messages when it has fewer. Default 50ms. Negative: not at all.
	// Live.
	BatchWait time.Duration `json:"batch_wait"`
	// LaneDepth bounds the messages of one lane that an ordered subscription holds, most of them waiting for an
	// earlier message of their key. When it is reached, the lane waits and other lanes go on. Default 64. Negative is
	// refused.
	LaneDepth int `json:"lane_depth"`
}

// MarshalJSON writes the fields that are not zero.
func (s Subscription) MarshalJSON() ([]byte, error) { return configdata.Marshal(s) }

// UnmarshalJSON replaces all of s; unknown fields are an error.
func (s *Subscription) UnmarshalJSON(b []byte) error { return configdata.Unmarshal(b, s) }

// Validate reports every fault at once.
func (s Subscription) Validate() error {
	f := configdata.Check("pubsub", s.withDefaults().Name)
	topic := checkTopic(s.Topic)
	f.Require(topic == nil, "Topic", s.Topic, "letters, digits, '_' or '-', in parts separated by single dots")
	f.Require(isName(s.Group) || s.Temporary && s.Group == "", "Group", s.Group, "one or more letters, digits, '_' or '-'")
	dead := DeadLetterTopic(s.Topic, s.Group)
	f.Require(s.Temporary || len(dead) <= maxTopic, "Group", s.Group, "shorter: the name of the dead-letter topic is too long")
	_, timed := s.StartTime()
	f.Require(s.Start == "" || s.Start == "start" || s.Start == "end" || timed, "Start", s.Start, `"start", "end" or a time as RFC 3339 has it`)
	f.Require(!s.HoldKey || s.Ordered && !s.Temporary, "HoldKey", s.HoldKey, "false unless Ordered and not Temporary")
	f.Require(s.BatchSize >= 0, "BatchSize", s.BatchSize, "positive, or zero for the default")
	f.Require(s.Concurrency >= 0, "Concurrency", s.Concurrency, "positive, or zero for the default")
	f.Require(s.BackoffMax >= 0, "BackoffMax", s.BackoffMax, "positive, or zero for the default")
	f.Require(s.BackoffMax == 0 || s.BackoffMax >= s.BackoffInitial, "BackoffMax", s.BackoffMax, "at least BackoffInitial")
	f.Require(s.Lease >= 0, "Lease", s.Lease, "positive, or zero for the default")
	f.Require(s.LaneDepth >= 0, "LaneDepth", s.LaneDepth, "positive, or zero for the default")
	return f.Err()
}

func (s Subscription) withDefaults() Subscription {
	if s.Name == "" {
		s.Name = s.Topic + "/" + s.Group
	}
	if s.Start == "" {
		s.Start = "end"
	}
	s.Concurrency = configdata.Default(s.Concurrency, 8)
	s.BatchSize = configdata.Default(s.BatchSize, 100)
	s.BatchWait = configdata.Default(s.BatchWait, 50*time.Millisecond)
	s.MaxAttempts = configdata.Default(s.MaxAttempts, 10)
	s.BackoffInitial = configdata.Default(s.BackoffInitial, 100*time.Millisecond)
	s.BackoffMax = configdata.Default(s.BackoffMax, max(30*time.Second, s.BackoffInitial))
	s.HandleTimeout = configdata.Default(s.HandleTimeout, 30*time.Second)
	s.Lease = configdata.Default(s.Lease, 30*time.Second)
	s.DrainTimeout = configdata.Default(s.DrainTimeout, 30*time.Second)
	s.LaneDepth = configdata.Default(s.LaneDepth, 64)
	return s
}

// StartTime is the time that Start names, if it names one.
func (s Subscription) StartTime() (time.Time, bool) {
	t, err := time.Parse(time.RFC3339Nano, s.Start)
	return t, err == nil
}

// backoff is the delay after the given attempt failed: exponential with full jitter.
func (s Subscription) backoff(attempt int) time.Duration {
	if s.BackoffInitial < 0 {
		return 0
	}
	bound := s.BackoffMax
	if shift := max(attempt, 1) - 1; shift < 32 && s.BackoffInitial <= bound>>shift {
		bound = s.BackoffInitial << shift
	}
	return rand.N(bound + 1)
}
