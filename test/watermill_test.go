package test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/tests"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// watermillVariant is one way in which Watermill's suite is run. Its switches contradict each other: a subscriber that shares a
// group goes on where the group was, and one that reads old messages does not.
type watermillVariant struct {
	name    string
	broker  func(t *testing.T, v watermillVariant) (connect watermillConnect)
	needs   func(t *testing.T) // skips the test where the broker is missing; nil: it is in the process
	ordered bool
	old     bool // each subscriber without a group reads everything, in a group of its own
	// skips says why tests of the suite are skipped; any other that is skipped is a failure, and so is one of these that is not.
	skips map[string]string
}

const (
	orderInOtherVariant = "this variant does not ask for order; the other variants do"
	oldInOtherVariant   = "subscribers of a group go on where the group was; the variant \"old messages\" reads from the beginning"
	nothingOld          = "the broker keeps nothing for groups to come"
	// Seen in one run of four: "received: 10000, sent: 9999". TestGuaranteeRestartLosesNothing in natspubsub does the same with a
	// ledger that is complete before it is compared.
	reconnectRaces = "it compares the published messages while another of its goroutines still appends to them"
)

func watermillVariants() []watermillVariant {
	var all []watermillVariant
	for _, b := range []struct {
		name   string
		broker func(*testing.T, watermillVariant) watermillConnect
		needs  func(*testing.T)
		replay bool // there is a variant "old messages"
	}{
		{"mem", inMemory, nil, true},
		{"nats", onEmbeddedNATS, nil, true},
		{"redis", onSharedRedis, needsRedis, true},
		{"rabbitmq", onSharedRabbitMQ, needsRabbitMQ, false},
		{"kafka", onKafka, nil, true},
	} {
		noOld := oldInOtherVariant
		if !b.replay {
			noOld = nothingOld
		}
		all = append(all,
			watermillVariant{name: b.name + ", ordered", broker: b.broker, needs: b.needs, ordered: true, skips: map[string]string{
				"TestNewSubscriberReceivesOldMessages": noOld, "TestReconnect": reconnectRaces}},
			watermillVariant{name: b.name + ", unordered", broker: b.broker, needs: b.needs, skips: map[string]string{
				"TestPublishSubscribeInOrder": orderInOtherVariant, "TestNoAck": orderInOtherVariant,
				"TestNewSubscriberReceivesOldMessages": noOld, "TestReconnect": reconnectRaces}})
		if b.replay {
			all = append(all, watermillVariant{name: b.name + ", old messages", broker: b.broker, needs: b.needs, ordered: true, old: true,
				skips: map[string]string{"TestReconnect": reconnectRaces}})
		}
	}
	return all
}

// watermillTests is the number of tests in the suite.
const watermillTests = 16

// watermillLease is long beside what a slow machine takes, and short beside the 15 seconds and more that the suite waits.
const watermillLease = 4 * time.Second

// watermillChild names the variant that a child process runs.
const watermillChild = "BACKSTAY_WATERMILL"

// TestWatermill runs Watermill's universal suite for brokers against ours. A test that is skipped inside the suite looks passed from
// outside; so each variant runs in a child process whose output says what became of each test.
func TestWatermill(t *testing.T) {
	for _, v := range watermillVariants() {
		t.Run(v.name, func(t *testing.T) {
			t.Parallel() // the suite waits more than it works
			if v.needs != nil {
				v.needs(t)
			}
			verdicts, output := v.runSteadily(t)
			for name, verdict := range verdicts {
				reason, listed := v.skips[name]
				switch {
				case verdict == "SKIP" && !listed:
					t.Errorf("%s was skipped", name)
				case verdict != "SKIP" && listed:
					t.Errorf("%s was to be skipped since %s: the list is out of date", name, reason)
				case listed:
					t.Logf("skipped %s: %s", name, reason)
				}
			}
			require.Len(t, verdicts, watermillTests, "%s", tail(output))
		})
	}
}

var watermillPassed = regexp.MustCompile(`(?m)^--- PASS: TestWatermillSuite \(`)

var watermillVerdict = regexp.MustCompile(`(?m)^\s*--- (PASS|SKIP|FAIL): TestWatermillSuite/(\w+)/[\w-]+ \(`)

// runSteadily has the suite run, up to three times if the machine stands still meanwhile: the suite's own limits of time cannot
// be changed, and leases run out.
func (v watermillVariant) runSteadily(t *testing.T) (verdicts map[string]string, output []byte) {
	for try := 1; ; try++ {
		stood := longestStop()
		verdicts, output, err := v.run(t)
		stop := stood()
		if err == nil {
			return verdicts, output
		}
		if try == 3 || stop < watermillLease/8 {
			require.NoError(t, err, "%s", tail(output))
		}
		t.Logf("nothing moved for %v; it is tried again after %v: %s", stop, err, tail(output))
	}
}

// longestStop feels whether the machine moves, until it is asked for the longest time during which it did not.
func longestStop() func() time.Duration {
	const step = 20 * time.Millisecond
	done, result := make(chan struct{}), make(chan time.Duration)
	go func() {
		ticker := time.NewTicker(step)
		defer ticker.Stop()
		longest := time.Duration(0)
		for last := time.Now(); ; last = time.Now() {
			select {
			case <-ticker.C:
				longest = max(longest, time.Since(last)-step)
			case <-done:
				result <- longest
				return
			}
		}
	}()
	return func() time.Duration { close(done); return <-result }
}

// run has a child process run the suite, which has to pass, and returns the verdict on each test.
func (v watermillVariant) run(t *testing.T) (verdicts map[string]string, output []byte, err error) {
	self, err := os.Executable()
	require.NoError(t, err)
	args := []string{"-test.run=^TestWatermillSuite$", "-test.v", "-test.count=1", "-test.timeout=20m"}
	if os.Getenv("BACKSTAY_LONG") != "1" {
		args = append(args, "-test.short", "-test.timeout=10m")
	}
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Env = append(os.Environ(), watermillChild+"="+v.name)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr // kept apart: the suite's log would run into the verdicts
	err = cmd.Run()
	output = append(stdout.Bytes(), stderr.Bytes()...)
	// TestMain finds the goroutines that the suite itself leaves behind; suite has looked for others.
	if err != nil && !bytes.Contains(stderr.Bytes(), []byte("goleak: Errors on successful test run")) {
		return nil, output, err
	}
	if !watermillPassed.Match(stdout.Bytes()) {
		return nil, output, errors.New("the suite has not passed")
	}
	verdicts = map[string]string{}
	for _, m := range watermillVerdict.FindAllStringSubmatch(stdout.String(), -1) {
		verdicts[m[2]] = m[1]
	}
	return verdicts, output, nil
}

// tail is the end of what a process has said, and before it every line that tells of a failure.
func tail(output []byte) string {
	failed := regexp.MustCompile(`(?m)^.*(--- FAIL|panic:|DATA RACE|Error:).*$`).FindAll(output, 50)
	return fmt.Sprintf("%s\n…\n%s", bytes.Join(failed, []byte("\n")), output[max(0, len(output)-6000):])
}

// TestWatermillSuite is what the child processes of TestWatermill run; in any other process there is nothing for it to do.
func TestWatermillSuite(t *testing.T) {
	for _, v := range watermillVariants() {
		if v.name == os.Getenv(watermillChild) {
			v.suite(t)
		}
	}
}

// watermillLeaks are goroutines of the suite, which waits for none of them.
func watermillLeaks() []goleak.Option {
	return []goleak.Option{
		goleak.IgnoreAnyFunction("github.com/ThreeDotsLabs/watermill/internal/subscriber.(*multiplier).Subscribe.func2"),
		goleak.IgnoreAnyFunction("github.com/ThreeDotsLabs/watermill/internal/subscriber.(*multiplier).Subscribe.func3"),
	}
}

func (v watermillVariant) suite(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t, watermillLeaks()...) })
	connect := v.broker(t, v)
	features := tests.Features{
		ConsumerGroups:                   true,
		GuaranteedOrder:                  v.ordered,
		Persistent:                       true, // from one handle to the next; that of memory ends with the process
		NewSubscriberReceivesOldMessages: v.old,
	}
	shared := "everybody"
	if v.old {
		shared = ""
	}
	open := func(t *testing.T, group string) (message.Publisher, message.Subscriber) {
		return newWatermillPublisher(t, connect(t)), newWatermillSubscriber(t, connect(t), group, v.ordered)
	}
	tests.TestPubSub(t, features,
		func(t *testing.T) (message.Publisher, message.Subscriber) { return open(t, shared) },
		open)
}

// ownGroup is a group that nobody else has.
func ownGroup() string { return "own-" + watermill.NewUUID() }

// eventually bounds what the brokers of the suite are asked for.
func eventually(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}
