package pubsubtest_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/pubsub/mempubsub"
	"github.com/backstay-go/backstay/pubsub/pubsubtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// broken is a driver with one fault planted.
type broken struct {
	pubsub.Driver
	settle  func(pubsub.Verdict) (pubsub.Verdict, bool)
	deliver func([]pubsub.Delivery) []pubsub.Delivery
	publish func([]pubsub.Message) []pubsub.Message
	open    func(*pubsub.Subscription)
	deaf    bool
}

func (b *broken) Publish(ctx context.Context, msgs []pubsub.Message) []error {
	if b.publish != nil {
		msgs = b.publish(slices.Clone(msgs))
	}
	return b.Driver.Publish(ctx, msgs)
}

func (b *broken) Open(ctx context.Context, s pubsub.Subscription) (pubsub.Receiver, error) {
	if b.open != nil {
		b.open(&s)
	}
	r, err := b.Driver.Open(ctx, s)
	return &brokenReceiver{r, b}, err
}

type brokenReceiver struct {
	pubsub.Receiver
	b *broken
}

func (r *brokenReceiver) Receive(ctx context.Context, limit int) ([]pubsub.Delivery, error) {
	if r.b.deaf {
		ctx = context.WithoutCancel(ctx)
	}
	got, err := r.Receiver.Receive(ctx, limit)
	if r.b.deliver != nil {
		got = r.b.deliver(got)
	}
	return got, err
}

func (r *brokenReceiver) Settle(ctx context.Context, verdicts []pubsub.Verdict) error {
	var passed []pubsub.Verdict
	for _, v := range verdicts {
		keep := true
		if r.b.settle != nil {
			v, keep = r.b.settle(v)
		}
		if keep {
			passed = append(passed, v)
		}
	}
	return r.Receiver.Settle(ctx, passed)
}

func eachDelivery(change func(*pubsub.Delivery)) func([]pubsub.Delivery) []pubsub.Delivery {
	return func(got []pubsub.Delivery) []pubsub.Delivery {
		for i := range got {
			change(&got[i])
		}
		return got
	}
}

func eachMessage(change func(*pubsub.Message)) func([]pubsub.Message) []pubsub.Message {
	return func(msgs []pubsub.Message) []pubsub.Message {
		for i := range msgs {
			change(&msgs[i])
		}
		return msgs
	}
}

func dropKind(kind pubsub.VerdictKind) func(pubsub.Verdict) (pubsub.Verdict, bool) {
	return func(v pubsub.Verdict) (pubsub.Verdict, bool) { return v, v.Kind != kind }
}

// faults has, under the name of the test that must see it, a fault of a driver.
var faults = map[string]broken{
	"AckRemoves":              {settle: dropKind(pubsub.Ack)},
	"LeaseIsExtended":         {settle: dropKind(pubsub.Extend)},
	"NackRedeliversWithCount": {deliver: eachDelivery(func(d *pubsub.Delivery) { d.Attempt = 1 })},
	"DelayIsHonoured": {settle: func(v pubsub.Verdict) (pubsub.Verdict, bool) {
		v.Delay = 0
		return v, true
	}},
	"SettlingTwiceIsHarmless": {settle: func(v pubsub.Verdict) (pubsub.Verdict, bool) {
		v.Kind = pubsub.Nack
		return v, true
	}},
	"MembersShareMessages": {open: func(s *pubsub.Subscription) { s.Group += fmt.Sprint(time.Now().UnixNano()) }},
	"OrderPerKey": {deliver: func(got []pubsub.Delivery) []pubsub.Delivery {
		slices.Reverse(got)
		return got
	}},
	"OrderAcrossAbandon":         {open: func(s *pubsub.Subscription) { s.Ordered = false }},
	"LostLeaseBeginsTheLaneAnew": {deliver: eachDelivery(func(d *pubsub.Delivery) { d.Epoch = 1 })},
	"LaneDepthBoundsALane":       {open: func(s *pubsub.Subscription) { s.LaneDepth = 1000 }},
	"EveryGroupGetsEveryMessage": {open: func(s *pubsub.Subscription) { s.Group = "g" }},
	"EmptyPayload":               {publish: eachMessage(func(m *pubsub.Message) { m.Payload = []byte("{}") })},
	"BinaryPayload": {publish: eachMessage(func(m *pubsub.Message) {
		m.Payload = []byte(strings.ToValidUTF8(string(m.Payload), "?"))
	})},
	"UnicodeHeaders":        {publish: eachMessage(func(m *pubsub.Message) { m.Header = nil })},
	"StartAtStart":          {open: func(s *pubsub.Subscription) { s.Start = "end" }},
	"StartAtEnd":            {open: func(s *pubsub.Subscription) { s.Start = "start" }},
	"ReceiveObeysContext":   {deaf: true},
	"AbandonedLeaseExpires": {open: func(s *pubsub.Subscription) { s.Lease = time.Hour }},
	"AttemptLimitDeadLetters": {publish: eachMessage(func(m *pubsub.Message) {
		m.Topic, _, _ = strings.Cut(m.Topic, ".dead.")
	})},
}

// TestSuiteSeesPlantedFaults runs every test of faults in a child process, where it must fail.
func TestSuiteSeesPlantedFaults(t *testing.T) {
	if name := os.Getenv("PUBSUBTEST_FAULT"); name != "" {
		fault := faults[name]
		pubsubtest.Run(t, pubsubtest.Harness{
			New: func(*testing.T) pubsub.Driver {
				fault.Driver = mempubsub.New(mempubsub.Config{Retain: 1000})
				return &fault
			},
			Lease: 200 * time.Millisecond,
			Wait:  time.Second,
		})
		return
	}
	for name := range faults {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestSuiteSeesPlantedFaults$/^"+name+"$")
			cmd.Env = append(os.Environ(), "PUBSUBTEST_FAULT="+name)
			out, err := cmd.CombinedOutput()
			require.Error(t, err, "the fault was not seen")
			require.Contains(t, string(out), "--- FAIL: TestSuiteSeesPlantedFaults/"+name, "%s", out)
		})
	}
}

func TestUnknownSkipFails(t *testing.T) {
	if os.Getenv("PUBSUBTEST_SKIP") != "" {
		pubsubtest.Run(t, pubsubtest.Harness{
			New:  func(*testing.T) pubsub.Driver { return mempubsub.New(mempubsub.Config{}) },
			Skip: map[string]string{"NoSuchTest": "it does not exist"},
		})
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestUnknownSkipFails$/^none$")
	cmd.Env = append(os.Environ(), "PUBSUBTEST_SKIP=1")
	out, err := cmd.CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "NoSuchTest")
}
