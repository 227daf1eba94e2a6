package pubsub

import (
	"context"
	"time"
)

// Driver connects a Bus to a broker. Services do not call it; they make one with a backend package and hand it to New,
// which owns it from then on. All methods are safe for concurrent use. Package pubsubtest proves an implementation.
type Driver interface {
	// Publish sends messages that are checked and complete, and returns when the broker has accepted them as durably
	// as Capabilities says. The result is nil when all were accepted, otherwise one entry per message. An entry that
	// wraps ErrInDoubt means that the message may have been accepted, any other that it was not. The slice is the
	// driver's; headers and payloads are shared and not to be changed.
	Publish(ctx context.Context, msgs []Message) []error
	// Open makes the subscription stand: messages published to the topic after it returns reach the group, and those
	// published to DeadLetterTopic(s.Topic, s.Group) are kept until somebody reads them, or their Publish fails. It
	// is called with the defaults of s filled in.
	//
	// With s.Ordered the driver gives each lane to one Receiver of the group at a time, delivers it in publish order,
	// has at most s.LaneDepth of its messages unsettled, and redelivers unsettled messages of a lane before later
	// ones: after a Nack, after Close, and after a lost lease. One lost lease makes all that the Receiver holds of the
	// lane come again, in order and in a new epoch, to it or to another.
	Open(ctx context.Context, s Subscription) (Receiver, error)
	// Capabilities says what the connected server can do. It does not block.
	Capabilities() Capabilities
	// Close releases the connection. Receivers are closed before. It can be called more than once.
	Close() error
}

// Receiver is a driver's member of a group. There is one call of Receive at a time, and beside it one of Settle.
type Receiver interface {
	// Receive returns 1 to limit deliveries. It blocks until there is one, ctx is done, or the subscription is beyond
	// repair; trouble that passes, such as a lost connection, is retried inside. The lease of a delivery begins no
	// earlier than its return: a driver that fetches ahead keeps the leases of what it holds. The slice is the driver's
	// again with the next call.
	Receive(ctx context.Context, limit int) ([]Delivery, error)
	// Settle passes verdicts to the broker. A Nack or Extend is accepted when it returns. An Ack is passed on then, and
	// may be confirmed by a later call, at the latest by Close: until then the message may come again, when the
	// connection is lost, but nothing else happens to it. An error means that no verdict of the call is accepted for
	// certain. All of them are then given again, so repeating one must be harmless; so must be a token whose lease is
	// lost. The slice is the caller's again once it has returned.
	Settle(ctx context.Context, verdicts []Verdict) error
	// Close leaves the group. Unsettled deliveries go back to the broker. It confirms the acknowledgements that are not
	// yet confirmed, and returns an error that wraps ErrInDoubt when it cannot: their messages may come again. It ends
	// a Receive that blocks, and can be called more than once.
	Close() error
}

// Delivery is a message leased to a Receiver until it is settled or the lease runs out.
type Delivery struct {
	// Message is the message; its Attempt is the broker's count of deliveries, 1 for the first. A broker that does
	// not count reports 1, or 2 for a message that it marks as redelivered.
	Message
	// Lane is the part of the topic that order holds within. Messages of one key have one lane. Zero when unordered.
	Lane int
	// Epoch is for ordered subscriptions: it grows whenever the lane begins anew with its first unsettled message,
	// since a lease was lost or the lane came from another member, and stays otherwise, since the keys of a lane are
	// held (see Subscription.HoldKey) for an epoch. What was delivered in an earlier epoch is stale and no longer
	// handled. It begins with 1. A driver that leaves it zero keeps order only while no lease is lost: the
	// consumer then takes nothing of the lane for two leases and hopes for the best.
	Epoch uint64
	// Token is comparable and unlike that of any other delivery of the Receiver, including one of the same message.
	Token any
	// Stale, if it is set, reports that the lease is lost before its time: the broker has given the lane to another
	// member. It is asked just before a handler begins and must be quick and safe for concurrent use.
	Stale func() bool
}

// VerdictKind says what a Verdict asks for.
type VerdictKind int

const (
	// Ack says that the message was handled and must not be delivered to the group again.
	Ack VerdictKind = iota + 1
	// Nack gives the message back, to be delivered again.
	Nack
	// Extend makes the lease begin anew.
	Extend
)

// Verdict is what becomes of a delivery.
type Verdict struct {
	// Token is that of the Delivery.
	Token any
	// Kind is Ack, Nack or Extend.
	Kind VerdictKind
	// Delay is for a Nack: the message is redelivered no sooner. It is zero when the subscription is ordered or the
	// driver lacks DelayedNack.
	Delay time.Duration
}

// Capabilities declares what a driver can do on the server that it is connected to.
type Capabilities struct {
	// Driver is its name in errors and metrics, such as "nats".
	Driver string
	// Ordered is true when the driver can keep lanes.
	Ordered bool
	// DelayedNack is true when the broker holds back a message for the Delay of a Nack. Otherwise the consumer holds
	// it, leased, and tries again itself.
	DelayedNack bool
	// Durable is true when an accepted message survives the end of every process involved.
	Durable bool
	// ReplayFromStart is true when a new group can begin with messages published before it existed, ReplayFromTime
	// when it can begin with those of them published from a given time on.
	ReplayFromStart, ReplayFromTime bool
	// DeliverAt is true when the broker holds a message back until its DeliverAt.
	DeliverAt bool
	// Temporary is true when the broker can remove a group whose member is gone.
	Temporary bool
	// Dedup is for how long, at least, an accepted DedupID is recognised: a message with the same one is accepted and
	// not delivered. Zero: it is delivered again.
	Dedup time.Duration
	// PublishObeysContext is true when Driver.Publish returns promptly once its context is done, whatever the broker
	// does. The Bus then calls it on the goroutine of its caller. Otherwise it gives each call a goroutine, which costs
	// about a microsecond, to be able to leave a call behind that hangs.
	PublishObeysContext bool
	// PublishForgetsContext is true when nobody uses the context of Driver.Publish once that has returned. The Bus then
	// uses it for the next call, which spares an allocation. It means nothing without PublishObeysContext.
	PublishForgetsContext bool
	// SettleDoesNotBlock is true when Receiver.Settle only changes the memory of this process. The consumer then calls
	// it on the goroutine of its handlers, which spares a hand-over to another.
	SettleDoesNotBlock bool
	// MaxPayload is the longest payload in bytes; zero means no limit of its own.
	MaxPayload int
	// Fixed is true when all of this stays as it is for as long as the driver lives. The Bus then asks for it once.
	Fixed bool
	// Durability says in words what a nil result of Publish promises, such as "fsynced on a majority".
	Durability string
}

// lacks returns the *CapabilityError for what s asks for in vain.
func (c Capabilities) lacks(s Subscription) error {
	_, timed := s.StartTime()
	for _, need := range []struct {
		name       string
		asked, has bool
	}{
		{"Ordered", s.Ordered, c.Ordered},
		{"ReplayFromStart", s.Start == "start", c.ReplayFromStart},
		{"ReplayFromTime", timed, c.ReplayFromTime},
		{"Temporary", s.Temporary, c.Temporary},
	} {
		if need.asked && !need.has {
			return &CapabilityError{Driver: c.Driver, Capability: need.name}
		}
	}
	return nil
}
