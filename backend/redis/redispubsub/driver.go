package redispubsub

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	neturl "net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/backstay-go/backstay/pubsub"
)

// Driver is a pubsub.Driver on Redis Streams. New or Open makes one; the Bus that it is given to closes it. Its methods
// are safe for concurrent use.
type Driver struct {
	cfg     Config
	client  rueidis.Client
	owned   bool // client is closed with the driver
	topics  sync.Map
	counts  counts
	closed  atomic.Bool
	release func()
	origin  time.Time // receivers count their time from here

	durable    bool
	durability string
	maxPayload int

	ctx     context.Context // ends with the driver
	running sync.WaitGroup
}

var _ pubsub.Driver = (*Driver)(nil)

// New returns a driver on client, which stays the caller's and must be closed after the driver. It asks the server for
// its version and persistence, which takes until ctx is done at most, and fails when cfg is invalid or the server does
// not answer or is older than 7.0. ClientOption makes good options for the client; with rueidis's own, a server that
// hangs is noticed late. Options that send commands to replicas must leave streams and scripts alone.
func New(ctx context.Context, client rueidis.Client, cfg Config) (*Driver, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if client == nil {
		return nil, errors.New("redispubsub: New: the client is nil")
	}
	d := &Driver{cfg: cfg.withDefaults(), client: client, origin: time.Now()}
	if err := d.inspect(ctx); err != nil {
		return nil, fmt.Errorf("redispubsub %q: %w", d.cfg.Name, err)
	}
	running, stop := context.WithCancel(context.Background())
	d.ctx = running
	d.release = sync.OnceFunc(func() {
		d.closed.Store(true)
		stop()
		d.running.Wait()
		if d.owned {
			d.client.Close()
		}
	})
	d.running.Go(d.tidy)
	return d, nil
}

// Open connects to the server, sentinel or cluster at url and returns a driver that closes the connection when it is
// closed. It fails as ClientOption and New do, and when no server answers.
func Open(ctx context.Context, url string, cfg Config) (*Driver, error) {
	opt, err := ClientOption(url)
	if err != nil {
		return nil, err
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	client, err := rueidis.NewClient(opt)
	if err != nil {
		return nil, fmt.Errorf("redispubsub: %w", err)
	}
	d, err := New(ctx, client, cfg)
	if err != nil {
		client.Close()
		return nil, err
	}
	d.owned = true
	return d, nil
}

// ClientOption returns options for rueidis.NewClient, for the server, sentinel or cluster at url, such as
// "redis://user:password@127.0.0.1:6379/0" or "rediss://…" for TLS. They differ from rueidis's own in that a connection
// that has gone silent is given up after some five seconds instead of eleven, and in that nothing is cached;
// dial_timeout and write_timeout in the query of the url say otherwise. It fails on a url that is none.
func ClientOption(url string) (rueidis.ClientOption, error) {
	opt, err := rueidis.ParseURL(url)
	if err != nil {
		if _, ok := errors.AsType[*neturl.Error](err); ok { // it quotes the URL, and the password with it
			err = errors.New("the URL cannot be parsed; what is special in a password must be escaped with %")
		}
		return opt, fmt.Errorf("redispubsub: ClientOption: %w", err)
	}
	if opt.Dialer.Timeout == 0 {
		opt.Dialer.Timeout = 2 * time.Second
	}
	if opt.ConnWriteTimeout == 0 {
		opt.ConnWriteTimeout = 4 * time.Second
	}
	opt.Dialer.KeepAlive = time.Second // also how long a connection may be silent before it is asked
	opt.DisableCache = true
	return opt, nil
}

// inspect reads what Capabilities says.
func (d *Driver) inspect(ctx context.Context) error {
	type outcome struct {
		info string
		err  error
	}
	ended := make(chan outcome, 1)
	go func() {
		b := d.client.B()
		info, err := d.client.Do(undated{ctx}, b.Info().Build()).ToString()
		if err == nil {
			fsync, _ := d.client.Do(undated{ctx}, b.ConfigGet().Parameter("appendfsync").Build()).AsStrMap()
			info += "\nappendfsync:" + fsync["appendfsync"] // managed servers do not tell
			bulk, _ := d.client.Do(undated{ctx}, b.ConfigGet().Parameter("proto-max-bulk-len").Build()).AsStrMap()
			info += "\nproto-max-bulk-len:" + bulk["proto-max-bulk-len"]
		}
		ended <- outcome{info, err}
	}()
	select {
	case o := <-ended:
		if o.err != nil {
			return o.err
		}
		return d.note(o.info)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (d *Driver) note(info string) error {
	facts := make(map[string]string)
	for line := range strings.Lines(info) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		facts[name] = value
	}
	var major, minor int
	version := facts["redis_version"]
	if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); err == nil && major < 7 {
		return fmt.Errorf("server version %s is too old: 7.0 or later is needed", version)
	}
	d.maxPayload = 512 << 20
	if n := 0; facts["proto-max-bulk-len"] != "" {
		if _, err := fmt.Sscan(facts["proto-max-bulk-len"], &n); err == nil && n > 0 {
			d.maxPayload = n
		}
	}
	d.durable = facts["aof_enabled"] == "1"
	switch {
	case !d.durable:
		d.durability = "in the memory of the server, which keeps no append-only file"
	case facts["appendfsync"] == "always":
		d.durability = "in the append-only file of the server, fsynced before the answer"
	case facts["appendfsync"] == "everysec":
		d.durability = "in the append-only file of the server, which is fsynced every second"
	default:
		d.durability = "in the append-only file of the server"
	}
	if d.cfg.Replicas > 0 {
		d.durability += fmt.Sprintf("; in the memory of %d replicas", d.cfg.Replicas)
	}
	return nil
}

// Capabilities says what the server can do that the driver was connected to. Durable is true when it kept an append-only
// file then.
func (d *Driver) Capabilities() pubsub.Capabilities {
	return pubsub.Capabilities{
		Driver:          "redis",
		Ordered:         true,
		Durable:         d.durable,
		ReplayFromStart: true,
		ReplayFromTime:  true,
		Temporary:       true,
		MaxPayload:      d.maxPayload,
		Durability:      d.durability,
	}
}

// Close ends what the driver does in the background, and the connection if Open made it. It can be called more than
// once.
func (d *Driver) Close() error {
	d.release()
	return nil
}

// now is the time as receivers count it.
func (d *Driver) now() time.Duration { return time.Since(d.origin) }

// ensureTopic makes the topic, or checks that it has as many lanes as it should.
func (d *Driver) ensureTopic(ctx context.Context, name string) (*topic, error) {
	if t, known := d.topics.Load(name); known {
		return t.(*topic), nil
	}
	t := newTopic(d.cfg, name)
	answer, err := d.attend(ctx, topicScript, []string{t.meta()}, fmt.Sprint(d.cfg.Lanes))
	if err != nil {
		return nil, err
	}
	if lanes, err := answer.AsInt64(); err != nil || lanes != int64(d.cfg.Lanes) {
		return nil, errors.Join(err, fmt.Errorf("%w: topic %s: Config.Lanes is %d, found %d", ErrMismatch, name, d.cfg.Lanes, lanes))
	}
	known, _ := d.topics.LoadOrStore(name, t)
	return known.(*topic), nil
}

// randomName is the name of a member.
func randomName() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails since Go 1.24
	return hex.EncodeToString(b[:])
}

type counts struct {
	published, refused, inDoubt, received, redelivered, trimmed atomic.Uint64
}

// Stats counts since the driver was made.
type Stats struct {
	// Published is the number of messages that the server has accepted.
	Published uint64
	// Refused is the number of messages that were not accepted, InDoubt those whose answer did not come.
	Refused, InDoubt uint64
	// Received is the number of deliveries, Redelivered those that were not the first of their message.
	Received, Redelivered uint64
	// Trimmed is the number of messages that this driver has removed for MaxAge or MaxLength.
	Trimmed uint64
}

// Stats is a snapshot; reading it does not slow the driver.
func (d *Driver) Stats() Stats {
	return Stats{
		Published: d.counts.published.Load(), Refused: d.counts.refused.Load(), InDoubt: d.counts.inDoubt.Load(),
		Received: d.counts.received.Load(), Redelivered: d.counts.redelivered.Load(), Trimmed: d.counts.trimmed.Load(),
	}
}

// Describe names the driver for consoles and telemetry; config is its Config with defaults filled in.
func (d *Driver) Describe() (kind, name string, config any) { return "redispubsub", d.cfg.Name, d.cfg }

// Metrics yields Stats by name.
func (d *Driver) Metrics() iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) {
		st := d.Stats()
		_ = yield("published_total", float64(st.Published)) &&
			yield("refused_total", float64(st.Refused)) &&
			yield("in_doubt_total", float64(st.InDoubt)) &&
			yield("received_total", float64(st.Received)) &&
			yield("redelivered_total", float64(st.Redelivered)) &&
			yield("trimmed_total", float64(st.Trimmed))
	}
}
