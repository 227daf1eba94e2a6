package bench

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/backstay-go/backstay/backend/nats/natsembed"
	"github.com/backstay-go/backstay/backend/nats/natspubsub"
	"github.com/backstay-go/backstay/pubsub"
)

const (
	syncPublishCase  = "JetStream, publish one at a time"
	asyncPublishCase = "JetStream, publish many"
	consumeCase      = "JetStream, consume and acknowledge"
	fsyncCase        = "JetStream, publish many, each on disk"

	overTCP   = ", TCP"
	inProcess = ", in process"

	rawName       = "nats.go 1.55.0"
	watermillNATS = "watermill-nats 2.1.3 jetstream"
	ackAsync      = watermillNATS + ", AckAsync"
	oursOrdered   = ours + ", ordered, 100 keys"

	keyCount = 100
	// natsCall is the number of messages that one Publish of many has.
	natsCall = 1000
	// recordSize is what the server stores of a message of these benchmarks: body, headers and its own bytes.
	recordSize = 476
)

func jetStream(l *list) {
	for _, link := range []string{overTCP, inProcess} {
		l.append(syncPublishCase+link, Floor, broker(link, rawSync))
		l.append(syncPublishCase+link, watermillNATS, broker(link, watermillPublish))
		l.append(syncPublishCase+link, ours, broker(link, oursPublish(1)))
		l.append(asyncPublishCase+link, Floor, broker(link, rawAsync))
		l.append(asyncPublishCase+link, watermillNATS, broker(link, watermillPublish))
		l.append(asyncPublishCase+link, ours, broker(link, oursPublish(natsCall)))
		l.append(consumeCase+link, Floor, broker(link, rawConsume))
		l.append(consumeCase+link, watermillNATS, broker(link, watermillConsume(false)))
		l.append(consumeCase+link, ackAsync, broker(link, watermillConsume(true)))
		l.append(consumeCase+link, ours, broker(link, oursConsume(false)))
		l.append(consumeCase+link, oursOrdered, broker(link, oursConsume(true)))
	}
	l.append(fsyncCase, Floor, appendAndSync)
	l.append(fsyncCase, rawName, syncedBroker(rawAsync))
	l.append(fsyncCase, ours, syncedBroker(oursPublish(natsCall)))
}

func jetStreamTargets() []Target {
	var targets []Target
	for _, link := range []string{overTCP, inProcess} {
		targets = append(targets,
			Target{asyncPublishCase + link, ours, Floor, 1 / 0.9, false, 0, anyNumber},
			Target{asyncPublishCase + link, ours, watermillNATS, 0.25, false, 0, anyNumber},
			Target{consumeCase + link, ours, Floor, 1 / 0.95, false, 0, anyNumber},
			Target{consumeCase + link, oursOrdered, Floor, 1 / 0.6, false, 0, anyNumber})
	}
	return append(targets, Target{fsyncCase, ours, Floor, 1 / 0.9, false, 0, anyNumber})
}

// station is a broker of its own for one run of a benchmark, and the connection that a subject works with. The stream is the one that
// our driver makes, for everybody, so that all subjects store and read the same messages with the same durability.
type station struct {
	conn   *nats.Conn
	js     jetstream.JetStream
	bus    *pubsub.Bus
	stream jetstream.Stream
	// models are messages as our driver sends them, one for each key. What others send has their subjects and headers.
	models []*nats.Msg
}

const (
	natsTopic = "orders"
	natsGroup = "bench"
)

// broker runs a subject on an embedded server with file storage; the work returns when the server has acknowledged everything, or
// shows that everything is acknowledged to it.
func broker(link string, open func(*testing.B, *station) pass) func(*testing.B) {
	return func(b *testing.B) { onStation(b, link, natsembed.Config{}, natspubsub.Config{}, open) }
}

// syncedBroker is a broker whose server calls fsync for every message before it acknowledges it.
func syncedBroker(open func(*testing.B, *station) pass) func(*testing.B) {
	return func(b *testing.B) {
		onStation(b, inProcess, natsembed.Config{SyncAlways: true}, natspubsub.Config{SyncAlways: true}, open)
	}
}

func onStation(b *testing.B, link string, server natsembed.Config, driver natspubsub.Config, open func(*testing.B, *station) pass) {
	s := newStation(b, link, server, driver)
	work := open(b, s)
	b.ReportAllocs()
	b.ResetTimer()
	work(b.N)
	b.StopTimer()
	stored := uint64(0)
	streams := s.js.ListStreams(context.Background())
	for info := range streams.Info() {
		if !strings.Contains(info.Config.Name, "~~") { // what our ordered groups remember
			stored += info.State.Msgs
		}
	}
	must(b, streams.Err())
	if stored != uint64(b.N) { // duplicates, say, would be accepted and cost little
		b.Errorf("%d messages are stored, not %d", stored, b.N)
	}
}

func newStation(b *testing.B, link string, cfg natsembed.Config, driverCfg natspubsub.Config) *station {
	ctx := context.Background()
	cfg.Dir = b.TempDir()
	cfg.Listen = "127.0.0.1:0"
	server, err := natsembed.Start(cfg)
	must(b, err)
	b.Cleanup(func() { check(b, server.Close()) })
	connect := func() (*nats.Conn, error) { return server.Connect() }
	if link == overTCP {
		connect = func() (*nats.Conn, error) { return nats.Connect(server.URL()) }
	}
	s := &station{}
	s.conn, err = connect()
	must(b, err)
	b.Cleanup(s.conn.Close)
	s.js, err = jetstream.New(s.conn)
	must(b, err)
	busConn, err := connect()
	must(b, err)
	b.Cleanup(busConn.Close)
	driver, err := natspubsub.New(ctx, busConn, driverCfg)
	must(b, err)
	s.bus = pubsub.New(driver)
	b.Cleanup(func() { check(b, s.bus.Close()) })
	s.makeModels(b)
	return s
}

// makeModels has our driver make the stream and reads what it sends, then empties the stream.
func (s *station) makeModels(b *testing.B) {
	ctx := context.Background()
	must(b, s.bus.Publish(ctx, s.messages(-keyCount, keyCount)...))
	names := s.js.StreamNames(ctx)
	for name := range names.Name() {
		stream, err := s.js.Stream(ctx, name)
		must(b, err)
		s.stream = stream
	}
	must(b, names.Err())
	for i := range keyCount {
		m, err := s.stream.GetMsg(ctx, uint64(i)+1)
		must(b, err)
		s.models = append(s.models, &nats.Msg{Subject: m.Subject, Header: m.Header, Data: m.Data})
	}
	must(b, s.stream.Purge(ctx))
}

// messages are n of ours, with the IDs from first on.
func (s *station) messages(first, n int) []pubsub.Message {
	payload := body()
	all := make([]pubsub.Message, n)
	for i := range all {
		number := first + i
		all[i] = pubsub.Message{
			ID: strconv.Itoa(number), Topic: natsTopic, Key: "key" + strconv.Itoa((number+keyCount)%keyCount), Payload: payload,
		}
	}
	return all
}

// raw makes the message of our driver by hand: the same subject, the same headers, an ID of its own.
func (s *station) raw(number int) *nats.Msg {
	model := s.models[number%keyCount]
	id := strconv.Itoa(number)
	m := &nats.Msg{Subject: model.Subject, Header: make(nats.Header, len(model.Header)), Data: model.Data}
	for name, values := range model.Header {
		if name == "ce-id" || name == nats.MsgIdHdr {
			m.Header[name] = []string{id}
			continue
		}
		m.Header[name] = []string{values[0]}
	}
	return m
}

func rawSync(b *testing.B, s *station) pass {
	ctx := context.Background()
	return func(n int) {
		for i := range n {
			_, err := s.js.PublishMsg(ctx, s.raw(i))
			must(b, err)
		}
	}
}

// rawAsync leaves the window to the client: 4,000 messages by default.
func rawAsync(b *testing.B, s *station) pass {
	failed := make(chan error, 1)
	js, err := jetstream.New(s.conn, jetstream.WithPublishAsyncErrHandler(func(_ jetstream.JetStream, _ *nats.Msg, err error) {
		select {
		case failed <- err:
		default:
		}
	}))
	must(b, err)
	return func(n int) {
		for i := range n {
			_, err := js.PublishMsgAsync(s.raw(i))
			must(b, err)
		}
		<-js.PublishAsyncComplete()
		select {
		case err := <-failed:
			b.Fatal(err)
		default:
		}
	}
}

func oursPublish(perCall int) func(*testing.B, *station) pass {
	return func(b *testing.B, s *station) pass {
		ctx := context.Background()
		payload := body()
		keys := make([]string, keyCount)
		for i, m := range s.messages(0, keyCount) {
			keys[i] = m.Key
		}
		batch := make([]pubsub.Message, 0, perCall)
		return func(n int) {
			for i := range n {
				batch = append(batch, pubsub.Message{ID: strconv.Itoa(i), Topic: natsTopic, Key: keys[i%keyCount], Payload: payload})
				if len(batch) == perCall || i == n-1 {
					must(b, s.bus.Publish(ctx, batch...))
					batch = batch[:0]
				}
			}
		}
	}
}

// appendAndSync is the floor of durability: a record at the end of a file, and fsync.
func appendAndSync(b *testing.B) {
	f, err := os.Create(filepath.Join(b.TempDir(), "log"))
	must(b, err)
	b.Cleanup(func() { check(b, f.Close()) })
	record := make([]byte, recordSize)
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		_, err := f.Write(record)
		must(b, err)
		must(b, f.Sync())
	}
}
