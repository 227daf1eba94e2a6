package kafkapubsub

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/backstay-go/backstay/pubsub"
)

// Driver is a pubsub.Driver on Kafka. New or Open makes one; the Bus that it is given to closes it. Its methods are safe
// for concurrent use.
type Driver struct {
	cfg        Config
	opts       []kgo.Opt // for the clients of members
	client     *kgo.Client
	admin      *kadm.Client
	source     []byte // of the CloudEvents
	maxPayload int
	topics     sync.Map // name → struct{}: those known to exist
	counts     counts
	closed     atomic.Bool
}

var _ pubsub.Driver = (*Driver)(nil)

// Open connects to the cluster that the seeds belong to, "host:port,host:port" or the same behind "kafka://", and returns
// a driver. Options, such as kgo.SASL and kgo.DialTLSConfig, go to every client that the driver makes: one to publish, and
// one for each member of a group. It fails when no broker answers until ctx is done, when cfg is invalid, and on options
// that would weaken what the driver promises (see New).
func Open(ctx context.Context, seeds string, cfg Config, opts ...kgo.Opt) (*Driver, error) {
	var list []string
	for seed := range strings.SplitSeq(strings.TrimSuffix(strings.TrimPrefix(seeds, "kafka://"), "/"), ",") {
		if seed = strings.TrimSpace(seed); seed != "" {
			if strings.Contains(seed, "@") {
				return nil, errors.New("kafkapubsub: Open: a seed is host:port; who logs in is said with kgo.SASL")
			}
			list = append(list, seed)
		}
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("kafkapubsub: Open: %q names no broker", seeds)
	}
	return open(ctx, cfg, append([]kgo.Opt{kgo.SeedBrokers(list...)}, opts...))
}

// New is Open for a service that has a client: the driver takes its options (seeds, TLS, SASL, logger, hooks) for clients
// of its own. The client stays the caller's and is not used otherwise. A client with a transactional ID, a group, topics
// to consume, acknowledgements of fewer than all replicas or without idempotent writes is refused.
func New(ctx context.Context, client *kgo.Client, cfg Config) (*Driver, error) {
	if client == nil {
		return nil, errors.New("kafkapubsub: New: the client is nil")
	}
	return open(ctx, cfg, client.Opts())
}

// defaults are the options that a service can change: what is published goes at once, and added partitions are noticed
// within a minute.
var defaults = []kgo.Opt{kgo.ClientID("backstay"), kgo.ProducerLinger(0), kgo.MetadataMaxAge(time.Minute)}

func open(ctx context.Context, cfg Config, opts []kgo.Opt) (*Driver, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	d := &Driver{cfg: cfg.withDefaults(), opts: opts, source: []byte("/kafka")}
	client, err := kgo.NewClient(slices.Concat(defaults, opts, []kgo.Opt{kgo.RecordPartitioner(partitioner{})})...)
	if err != nil {
		return nil, fmt.Errorf("kafkapubsub %q: %w", d.cfg.Name, err)
	}
	d.client, d.admin = client, kadm.NewClient(client)
	if err = d.checkClient(); err == nil {
		err = client.Ping(ctx)
	}
	if err != nil {
		client.Close()
		return nil, fmt.Errorf("kafkapubsub %q: %w", d.cfg.Name, err)
	}
	return d, nil
}

// checkClient refuses options that would weaken what the driver promises.
func (d *Driver) checkClient() error {
	bad := func(option string) error { return fmt.Errorf("the option %s cannot be used here", option) }
	if id, _ := d.client.OptValue(kgo.TransactionalID).(string); id != "" {
		return bad("kgo.TransactionalID")
	}
	if group, _ := d.client.OptValue(kgo.ConsumerGroup).(string); group != "" {
		return bad("kgo.ConsumerGroup")
	}
	if topics := d.client.GetConsumeTopics(); len(topics) > 0 {
		return bad("kgo.ConsumeTopics")
	}
	if off, _ := d.client.OptValue(kgo.DisableIdempotentWrite).(bool); off {
		return bad("kgo.DisableIdempotentWrite")
	}
	if unsafe, _ := d.client.OptValue(kgo.AllowIdempotentProduceCancellation).(bool); unsafe {
		return bad("kgo.AllowIdempotentProduceCancellation")
	}
	if acks, ok := d.client.OptValue(kgo.RequiredAcks).(kgo.Acks); ok && acks != kgo.AllISRAcks() {
		return bad("kgo.RequiredAcks")
	}
	limit, _ := d.client.OptValue(kgo.ProducerBatchMaxBytes).(int32)
	d.maxPayload = max(int(limit)-headerRoom, int(limit)/2)
	return nil
}

// headerRoom is kept free for headers below the limit of a batch.
const headerRoom = 16 << 10

// Capabilities says what Kafka can do.
func (d *Driver) Capabilities() pubsub.Capabilities {
	return pubsub.Capabilities{
		Driver:              "kafka",
		Ordered:             true,
		Durable:             true,
		ReplayFromStart:     true,
		ReplayFromTime:      true,
		PublishObeysContext: true,
		SettleDoesNotBlock:  true,
		MaxPayload:          d.maxPayload,
		Durability:          "acknowledged by all in-sync replicas of the partition, which fsync as they are configured",
	}
}

// Close ends publishing; what is in flight is reported in doubt. It does not wait for the cluster, and can be called more
// than once.
func (d *Driver) Close() error {
	if !d.closed.Swap(true) {
		d.client.Close()
	}
	return nil
}

func (d *Driver) errorf(topic string, err error) error {
	return fmt.Errorf("kafkapubsub %q: topic %s: %w", d.cfg.Name, topic, err)
}

type counts struct {
	published, refused, inDoubt, received, redelivered, commits, commitFailed, overrun atomic.Uint64
}

// Stats counts since the driver was made.
type Stats struct {
	// Published is the number of messages that the brokers have accepted, Refused that of those which they have not, and
	// InDoubt that of those whose answer did not come.
	Published, Refused, InDoubt uint64
	// Received is the number of deliveries, Redelivered those that were not the first of their message.
	Received, Redelivered uint64
	// Commits is the number of commits, CommitsFailed that of those which failed and are repeated.
	Commits, CommitsFailed uint64
	// Overrun is the number of partitions that went to another member while handlers still ran, since RevokeTimeout was
	// over.
	Overrun uint64
}

// Stats is a snapshot; reading it does not slow the driver.
func (d *Driver) Stats() Stats {
	return Stats{
		Published: d.counts.published.Load(), Refused: d.counts.refused.Load(), InDoubt: d.counts.inDoubt.Load(),
		Received: d.counts.received.Load(), Redelivered: d.counts.redelivered.Load(),
		Commits: d.counts.commits.Load(), CommitsFailed: d.counts.commitFailed.Load(), Overrun: d.counts.overrun.Load(),
	}
}

// Describe names the driver for consoles and telemetry; config is its Config with defaults filled in.
func (d *Driver) Describe() (kind, name string, config any) { return "kafkapubsub", d.cfg.Name, d.cfg }

// Metrics yields Stats by name.
func (d *Driver) Metrics() iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) {
		st := d.Stats()
		_ = yield("published_total", float64(st.Published)) &&
			yield("refused_total", float64(st.Refused)) &&
			yield("in_doubt_total", float64(st.InDoubt)) &&
			yield("received_total", float64(st.Received)) &&
			yield("redelivered_total", float64(st.Redelivered)) &&
			yield("commits_total", float64(st.Commits)) &&
			yield("commits_failed_total", float64(st.CommitsFailed)) &&
			yield("overrun_total", float64(st.Overrun))
	}
}

// base is the origin of the driver's clock, which is monotonic.
var base = time.Now()

func now() time.Duration { return time.Since(base) }
