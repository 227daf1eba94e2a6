package kafkapubsub_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/backstay-go/backstay/backend/kafka/kafkapubsub"
	"github.com/backstay-go/backstay/pubsub"
)

func TestMain(m *testing.M) {
	if spec := os.Getenv(brokerSpec); spec != "" {
		beBroker(spec)
	}
	if spec := os.Getenv(memberSpec); spec != "" {
		beMember(spec)
	}
	flag.Parse()
	_ = flag.Set("test.parallel", "8") // the tests wait more than they work
	goleak.VerifyTestMain(m)
}

// patience is how long a test waits for what must happen, on a machine of whatever speed.
const patience = 2 * time.Minute

// soon is a context that ends when a test has waited long enough.
func soon(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// long tells that the long forms of tests are asked for.
func long() bool { return os.Getenv("BACKSTAY_LONG") == "1" }

// cluster is a Kafka of the test's own, in this process. It allows sessions that are shorter than those of real ones.
func cluster(t testing.TB, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{
		kfake.NumBrokers(1), kfake.GroupMinSessionTimeout(100 * time.Millisecond),
	}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

var prefixes atomic.Int64

// newDriver is a driver with topics and groups of its own, unless cfg has a prefix, and patient unless it says otherwise.
func newDriver(t testing.TB, c *kfake.Cluster, cfg kafkapubsub.Config, opts ...kgo.Opt) *kafkapubsub.Driver {
	t.Helper()
	if cfg.Prefix == "" {
		cfg.Prefix = fmt.Sprintf("t%d.", prefixes.Add(1))
	}
	if cfg.PublishTimeout == 0 {
		cfg.PublishTimeout = patience
	}
	if cfg.SessionTimeout == 0 {
		cfg.SessionTimeout = 30 * time.Second
	}
	d, err := kafkapubsub.New(soon(t), client(t, c, opts...), cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, d.Close()) })
	return d
}

// client is a plain client of the cluster. It looks often for what has changed.
func client(t testing.TB, c *kfake.Cluster, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(c.ListenAddrs()...), kgo.MetadataMinAge(50 * time.Millisecond),
	}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(cl.Close)
	return cl
}

func message(id, key string) pubsub.Message {
	return pubsub.Message{ID: id, Topic: "t", Key: key, Payload: []byte(id), Time: time.Unix(1_700_000_000, 5).UTC()}
}

// open is a member of group g. Its lease is longer than receive waits, so that what is not given back does not come.
func open(t testing.TB, d *kafkapubsub.Driver, change func(*pubsub.Subscription)) pubsub.Receiver {
	t.Helper()
	s := pubsub.Subscription{Topic: "t", Group: "g", Start: "start", Lease: 2 * patience, LaneDepth: 64}
	if change != nil {
		change(&s)
	}
	r, err := d.Open(soon(t), s)
	require.NoError(t, err)
	t.Cleanup(func() { _ = r.Close() })
	return r
}
