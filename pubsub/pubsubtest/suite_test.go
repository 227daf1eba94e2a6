package pubsubtest_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
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
	fail    func([]pubsub.Message) []error
	caps    func(*pubsub.Capabilities)
	foreign func([]string) string // makes one value of several; nil joins them
	deaf    bool
}

func (b *broken) Capabilities() pubsub.Capabilities {
	caps := b.Driver.Capabilities()
	if b.caps != nil {
		b.caps(&caps)
	}
	return caps
}

func (b *broken) Publish(ctx context.Context, msgs []pubsub.Message) []error {
	if b.fail != nil {
		if errs := b.fail(msgs); errs != nil {
			return errs
		}
	}
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

// fault is a fault of a driver, with the test that must see it and a part of what the test must say.
type fault struct {
	test, says string
	broken
}

var faults = []fault{
	{"AckRemoves", "came again", broken{settle: dropKind(pubsub.Ack)}},
	{"LeaseIsExtended", "handlers ran", broken{settle: dropKind(pubsub.Extend)}},
	{"NackRedeliversWithCount", "no message came", broken{deliver: eachDelivery(func(d *pubsub.Delivery) { d.Attempt = 1 })}},
	{"DelayIsHonoured", "redelivered after", broken{settle: func(v pubsub.Verdict) (pubsub.Verdict, bool) {
		v.Delay = 0
		return v, true
	}}},
	{"SettlingTwiceIsHarmless", "came again", broken{settle: func(v pubsub.Verdict) (pubsub.Verdict, bool) {
		v.Kind = pubsub.Nack
		return v, true
	}}},
	{"MembersShareMessages", "want 40", broken{open: func(s *pubsub.Subscription) { s.Group += fmt.Sprint(time.Now().UnixNano()) }}},
	{"OrderPerKey", "came after", broken{deliver: reverse}},
	{"OrderAcrossAbandon", "came after", broken{open: func(s *pubsub.Subscription) { s.Ordered = false }}},
	{"LostLeaseBeginsTheLaneAnew", "after the lost lease", broken{deliver: eachDelivery(func(d *pubsub.Delivery) { d.Epoch = 1 })}},
	{"LaneDepthBoundsALane", "of one lane are unsettled", broken{open: func(s *pubsub.Subscription) { s.LaneDepth = 1000 }}},
	{"EveryGroupGetsEveryMessage", "no message came", broken{open: func(s *pubsub.Subscription) { s.Group = "g" }}},
	{"EmptyPayload", "Payload is", broken{publish: eachMessage(func(m *pubsub.Message) { m.Payload = []byte("{}") })}},
	{"BinaryPayload", "Payload is", broken{publish: eachMessage(func(m *pubsub.Message) {
		m.Payload = []byte(strings.ToValidUTF8(string(m.Payload), "?"))
	})}},
	{"LongPayloadIsRefused", "Payload is", broken{
		caps:    func(c *pubsub.Capabilities) { c.MaxPayload = 1000 },
		publish: eachMessage(func(m *pubsub.Message) { m.Payload = m.Payload[:min(len(m.Payload), 999)] }),
	}},
	{"UnicodeHeaders", "Header is", broken{publish: eachMessage(func(m *pubsub.Message) { m.Header = nil })}},
	{"OddTopicsAndGroups", "messages more", broken{
		publish: eachMessage(func(m *pubsub.Message) { m.Topic = strings.ToLower(m.Topic) }),
		open:    func(s *pubsub.Subscription) { s.Topic = strings.ToLower(s.Topic) },
	}},
	{"OddTopicsAndGroups", "no message came", broken{open: func(s *pubsub.Subscription) { s.Group = strings.ReplaceAll(s.Group, "_", "-") }}},
	{"ForeignMessages", `header twice is "one"`, broken{foreign: func(values []string) string { return values[0] }}},
	{"StartAtStart", "no message came", broken{open: func(s *pubsub.Subscription) { s.Start = "end" }}},
	{"StartAtEnd", "was not published to this group", broken{open: func(s *pubsub.Subscription) { s.Start = "start" }}},
	{"StartAtTime", `message "before-0000" was not published to this group`, broken{open: func(s *pubsub.Subscription) {
		if _, timed := s.StartTime(); timed {
			s.Start = "start"
		}
	}}},
	{"StartAtTime", "no message came", broken{open: func(s *pubsub.Subscription) { s.Start = "end" }}},
	{"TemporaryGroupEndsWithItsConsumer", `message "while-away-0000"`, broken{open: func(s *pubsub.Subscription) { s.Temporary = false }}},
	{"TemporaryGroupHasNoDeadLetters", "OnDeadLetter was not told", broken{deliver: eachDelivery(func(d *pubsub.Delivery) { d.Attempt = 1 })}},
	{"DeliverAtIsDeclared", "the driver declares DeliverAt", broken{fail: func(msgs []pubsub.Message) []error {
		return []error{fmt.Errorf("no schedule for %v", msgs[0].DeliverAt)}
	}}},
	{"DeliverAtIsHonoured", "too early", broken{publish: eachMessage(func(m *pubsub.Message) { m.DeliverAt = time.Time{} })}},
	{"DeliverAtIsHonoured", "no message came", broken{publish: eachMessage(func(m *pubsub.Message) {
		if !m.DeliverAt.IsZero() {
			m.DeliverAt = m.DeliverAt.Add(time.Hour)
		}
	})}},
	{"DeliverAtDoesNotHoldUpItsKey", "want at-once-0", broken{publish: eachMessage(func(m *pubsub.Message) {
		if m.DeliverAt.IsZero() {
			m.DeliverAt = time.Now().Add(3 * time.Second)
		}
	})}},
	{"DuplicatesAreDropped", `message "" came`, broken{caps: func(c *pubsub.Capabilities) { c.Dedup = time.Minute }}},
	{"DuplicatesAreDropped", "no message came", broken{
		caps:    func(c *pubsub.Capabilities) { c.Dedup = time.Minute },
		publish: onceEach(func(m pubsub.Message) string { return m.Topic + " " + m.ID }), // takes what is redriven for what failed
	}},
	{"DuplicatesAreDropped", "no message came", broken{
		caps:    func(c *pubsub.Capabilities) { c.Dedup = time.Minute },
		publish: onceEach(pubsub.DedupID), // whatever the topic
	}},
	{"RedriveIsForItsGroupAlone", "no message came", broken{publish: eachMessage(func(m *pubsub.Message) {
		if redrive := m.Header[pubsub.HeaderRedrive]; redrive != "" {
			m.Header = pubsub.Header{pubsub.HeaderRedrive: strings.Replace(redrive, "g/", "other/", 1)}
		}
	})}},
	{"RedriveObeysItsLimit", "want", broken{settle: dropKind(pubsub.Ack)}},
	{"Batches", "no message came", broken{settle: func(v pubsub.Verdict) (pubsub.Verdict, bool) {
		if v.Kind == pubsub.Nack {
			v.Kind = pubsub.Ack
		}
		return v, true
	}}},
	{"BatchHasOneOfAKey", "came after", broken{deliver: reverse}},
	{"HeldKeyWaitsForItsRedrive", "whose key is held", broken{
		open: func(s *pubsub.Subscription) { s.LaneDepth = 1 }, deliver: newEpochs(),
	}},
	{"ReceiveObeysContext", "Receive outlived its context", broken{deaf: true}},
	{"AbandonedLeaseExpires", "no message came", broken{open: func(s *pubsub.Subscription) { s.Lease = time.Hour }}},
	{"AttemptLimitDeadLetters", "no message came", broken{publish: eachMessage(func(m *pubsub.Message) {
		m.Topic, _, _ = strings.Cut(m.Topic, ".dead.")
	})}},
}

func reverse(got []pubsub.Delivery) []pubsub.Delivery {
	slices.Reverse(got)
	return got
}

// onceEach passes the first message of each name.
func onceEach(name func(pubsub.Message) string) func([]pubsub.Message) []pubsub.Message {
	seen := make(map[string]bool)
	return func(msgs []pubsub.Message) []pubsub.Message {
		return slices.DeleteFunc(msgs, func(m pubsub.Message) bool {
			was := seen[name(m)]
			seen[name(m)] = true
			return was
		})
	}
}

// newEpochs begins an epoch with every delivery.
func newEpochs() func([]pubsub.Delivery) []pubsub.Delivery {
	var epoch atomic.Uint64
	return func(got []pubsub.Delivery) []pubsub.Delivery {
		for i := range got {
			got[i].Epoch = epoch.Add(1)
		}
		return got
	}
}

// runFault runs the suite over a driver with one fault, or none.
func runFault(t *testing.T, b broken, cfg mempubsub.Config) {
	cfg.Retain = 1000
	pubsubtest.Run(t, pubsubtest.Harness{
		New: func(*testing.T) pubsub.Driver {
			b.Driver = mempubsub.New(cfg)
			return &b
		},
		Foreign: func(ctx context.Context, d pubsub.Driver, topic string, header map[string][]string, payload []byte) error {
			m := pubsub.Message{ID: string(payload), Topic: topic, Header: make(pubsub.Header), Payload: payload, Time: time.Now()}
			for name, values := range header {
				if b.foreign != nil && len(values) > 0 {
					m.Header[name] = b.foreign(values)
				} else {
					m.Header[name] = strings.Join(values, ", ")
				}
			}
			return errors.Join(d.Publish(ctx, []pubsub.Message{m})...)
		},
		Lease: 200 * time.Millisecond,
		Wait:  3 * time.Second,
	})
}

// child runs one test of this binary in a process of its own.
func child(t *testing.T, run, env string) (string, error) {
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.run="+run)
	cmd.Env = append(os.Environ(), env)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestSuiteSeesPlantedFaults runs the test of every fault in a child process, where it must fail.
func TestSuiteSeesPlantedFaults(t *testing.T) {
	if i, err := strconv.Atoi(os.Getenv("PUBSUBTEST_FAULT")); err == nil {
		runFault(t, faults[i].broken, mempubsub.Config{})
		return
	}
	few := make(chan struct{}, 6) // they wait more than they work
	var wg sync.WaitGroup
	for i, f := range faults {
		wg.Go(func() {
			few <- struct{}{}
			defer func() { <-few }()
			t.Run(f.test, func(t *testing.T) {
				out, err := child(t, "^TestSuiteSeesPlantedFaults$/^"+f.test+"$", fmt.Sprint("PUBSUBTEST_FAULT=", i))
				require.Error(t, err, "the fault was not seen")
				require.Contains(t, out, "--- FAIL: TestSuiteSeesPlantedFaults/"+f.test)
				require.Contains(t, out, f.says, "it fails for another reason")
			})
		})
	}
	wg.Wait()
}

// TestSuitePassesASoundDriver runs what the conformance test of mempubsub has to skip.
func TestSuitePassesASoundDriver(t *testing.T) {
	if os.Getenv("PUBSUBTEST_SOUND") != "" {
		runFault(t, broken{caps: func(c *pubsub.Capabilities) { c.MaxPayload = 1000 }}, mempubsub.Config{DedupWindow: time.Minute})
		return
	}
	tests := []string{"DuplicatesAreDropped", "ForeignMessages", "LongPayloadIsRefused"}
	out, err := child(t, "^TestSuitePassesASoundDriver$/^("+strings.Join(tests, "|")+")$", "PUBSUBTEST_SOUND=1")
	require.NoError(t, err, "%s", out)
	for _, name := range tests {
		require.Contains(t, out, "--- PASS: TestSuitePassesASoundDriver/"+name)
	}
}

// TestSuiteTriesAgainAfterAStall has a first driver that loses acknowledgements while it takes longer over them than a
// lease allows, and sound ones after it.
func TestSuiteTriesAgainAfterAStall(t *testing.T) {
	if os.Getenv("PUBSUBTEST_STALL") != "" {
		made := 0
		pubsubtest.Run(t, pubsubtest.Harness{
			New: func(*testing.T) pubsub.Driver {
				driver := mempubsub.New(mempubsub.Config{})
				if made++; made > 1 {
					return driver
				}
				return &broken{Driver: driver, settle: func(v pubsub.Verdict) (pubsub.Verdict, bool) {
					<-time.After(200 * time.Millisecond)
					return v, v.Kind != pubsub.Ack
				}}
			},
			Lease: 400 * time.Millisecond,
		})
		return
	}
	out, err := child(t, "^TestSuiteTriesAgainAfterAStall$/^AckRemoves$", "PUBSUBTEST_STALL=1")
	require.NoError(t, err, "%s", out)
	require.Contains(t, out, "it is tried again after")
	require.Contains(t, out, "came again")
}

func TestUnknownSkipFails(t *testing.T) {
	if os.Getenv("PUBSUBTEST_SKIP") != "" {
		pubsubtest.Run(t, pubsubtest.Harness{
			New:  func(*testing.T) pubsub.Driver { return mempubsub.New(mempubsub.Config{}) },
			Skip: map[string]string{"NoSuchTest": "it does not exist"},
		})
		return
	}
	out, err := child(t, "^TestUnknownSkipFails$/^none$", "PUBSUBTEST_SKIP=1")
	require.Error(t, err)
	require.Contains(t, out, "NoSuchTest")
}
