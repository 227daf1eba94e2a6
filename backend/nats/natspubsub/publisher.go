package natspubsub

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/semaphore"

	"github.com/backstay-go/backstay/pubsub"
)

const (
	// window is the number of messages in flight over all calls, below what makes a server push back (10,000 for a
	// stream, from all its publishers).
	window = 4096
	// windowStep is what a call takes of it at a time, so that a long call does not keep others out.
	windowStep = 128
	// queued is the number of calls that wait for the sender.
	queued = 1024
)

// publisher sends messages and matches the server's answers to them. One goroutine sends, since a connection that hangs
// blocks whoever writes to it: the callers only wait, as long as they like. Answers come to one inbox, whose last two
// tokens name the call and the message.
type publisher struct {
	conn   *nats.Conn
	topics *sync.Map
	cfg    Config
	queue  chan *call
	slots  *semaphore.Weighted
	closed chan struct{}
	status chan nats.Status
	inbox  string
	reply  []byte // of the sender: what the reply subjects of a call begin with
	sub    *nats.Subscription
	// maxPayload is the server's, kept here since the connection's own copy is behind the lock that a hanging write holds.
	maxPayload atomic.Int64
	close      func()

	mu    sync.Mutex
	calls map[uint64]*call // nil once stopped
	last  uint64
}

// newPublisher subscribes to the inbox and starts the sender. The caller closes it.
func newPublisher(d *Driver) (*publisher, error) {
	p := &publisher{
		conn: d.conn, topics: &d.topics, cfg: d.cfg,
		queue:  make(chan *call, queued),
		slots:  semaphore.NewWeighted(window),
		closed: make(chan struct{}),
		inbox:  d.conn.NewInbox() + ".",
		calls:  make(map[uint64]*call),
	}
	p.close = sync.OnceFunc(p.stop)
	var err error
	if p.sub, err = p.conn.Subscribe(p.inbox+"*.*", p.onAnswer); err != nil {
		return nil, err
	}
	_ = p.sub.SetPendingLimits(-1, -1) // the window is the limit
	p.status = p.conn.StatusChanged(nats.CONNECTED, nats.RECONNECTING, nats.CLOSED)
	p.maxPayload.Store(p.conn.MaxPayload())
	go p.watch()
	go p.run()
	return p, nil
}

func (p *publisher) stop() {
	p.mu.Lock()
	open := p.calls
	p.calls = nil
	p.mu.Unlock()
	close(p.closed)
	for _, c := range open {
		p.slots.Release(int64(c.abandon(pubsub.ErrClosed)))
	}
	p.conn.RemoveStatusListener(p.status)
	_ = p.sub.Unsubscribe() // fails when the connection is closed
}

// timers are used again, since starting one for each call costs more than the call.
var timers = sync.Pool{New: func() any {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}}

// publish returns when everything in c is settled: answered, or given up when its context, its time or the driver ended.
func (p *publisher) publish(c *call) {
	if !p.enter(c) {
		c.abandon(pubsub.ErrClosed)
		return
	}
	defer p.leave(c)
	timer := timers.Get().(*time.Timer)
	timer.Reset(time.Until(c.deadline))
	defer func() {
		timer.Stop()
		timers.Put(timer)
	}()
	queue := p.queue
	select {
	case queue <- c:
		queue = nil
	default:
	}
	for {
		var cause error
		select {
		case queue <- c:
			queue = nil
			continue
		case <-c.done: // also when the driver was closed
			return
		case <-c.ctx.Done():
			cause = c.ctx.Err()
		case <-timer.C:
			cause = context.DeadlineExceeded
		}
		p.slots.Release(int64(c.abandon(cause)))
		return
	}
}

// enter reports false when the driver is closed.
func (p *publisher) enter(c *call) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.calls == nil {
		return false
	}
	p.last++
	c.id = p.last
	p.calls[c.id] = c
	return true
}

func (p *publisher) leave(c *call) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.calls, c.id)
}

// run is the sender.
func (p *publisher) run() {
	e := newEncoder(p.cfg)
	for {
		select {
		case c := <-p.queue:
			p.send(c, e)
		case <-p.closed:
			return
		}
	}
}

// send puts the messages of c on their way, until Publish gives up.
func (p *publisher) send(c *call, e *encoder) {
	p.reply = append(strconv.AppendUint(append(p.reply[:0], p.inbox...), c.id, 36), '.')
	var t *topic
	for begin := 0; begin < len(c.msgs); begin += windowStep {
		end := min(begin+windowStep, len(c.msgs))
		if !p.acquire(c, int64(end-begin)) {
			return
		}
		for i := begin; i < end; i++ {
			if !c.next(i) {
				p.slots.Release(int64(end - i))
				return
			}
			if c.refused[i] {
				p.slots.Release(1)
				continue
			}
			t = p.topicOf(&c.msgs[i], t)
			nm := e.encode(&c.msgs[i], t)
			nm.Reply = string(strconv.AppendInt(p.reply, int64(i), 36))
			if err := p.conn.PublishMsg(nm); err != nil {
				p.settle(c, i, explain(err, nm, p.maxPayload.Load()), false)
			}
		}
	}
}

// acquire waits for room in the window, until Publish gives up.
func (p *publisher) acquire(c *call, n int64) bool {
	if p.slots.TryAcquire(n) {
		return true
	}
	ctx, cancel := context.WithDeadline(c.ctx, c.deadline)
	defer cancel()
	return p.slots.Acquire(ctx, n) == nil
}

// topicOf is what is known of the topic of m, which is probably that of the message before it.
func (p *publisher) topicOf(m *pubsub.Message, last *topic) *topic {
	if last != nil && last.name == m.Topic {
		return last
	}
	if t, known := p.topics.Load(m.Topic); known {
		return t.(*topic)
	}
	return p.cfg.topic(m.Topic) // forgotten meanwhile; the server will say what is wrong
}

func (p *publisher) settle(c *call, i int, err error, duplicate bool) {
	if c.settle(i, err, duplicate) {
		p.slots.Release(1)
	}
}

// onAnswer runs on the subscription's goroutine.
func (p *publisher) onAnswer(m *nats.Msg) {
	call, index, _ := strings.Cut(strings.TrimPrefix(m.Subject, p.inbox), ".")
	id, err1 := strconv.ParseUint(call, 36, 64)
	i, err2 := strconv.ParseUint(index, 36, 31)
	if err1 != nil || err2 != nil {
		return
	}
	p.mu.Lock()
	c := p.calls[id]
	p.mu.Unlock()
	if c == nil { // given up
		return
	}
	duplicate, err := parseAck(m)
	p.settle(c, int(i), err, duplicate)
}

var errBadAck = errors.New("the answer cannot be read")

// parseAck reads the answer to a message. The form that servers write is read without the decoder.
func parseAck(m *nats.Msg) (duplicate bool, err error) {
	if rest, ok := bytes.CutPrefix(m.Data, []byte(`{"stream":"`)); ok {
		_, rest, _ = bytes.Cut(rest, []byte(`",`))
		rest = bytes.TrimLeft(rest, " ") // some versions have one
		if rest, ok = bytes.CutPrefix(rest, []byte(`"seq":`)); ok && isNumber(rest[:max(len(rest)-1, 0)]) && rest[len(rest)-1] == '}' {
			return false, nil
		}
	}
	if len(m.Data) == 0 && m.Header.Get("Status") == "503" {
		return false, jetstream.ErrNoStreamResponse
	}
	var ack struct {
		Error     *jetstream.APIError `json:"error"`
		Stream    string              `json:"stream"`
		Duplicate bool                `json:"duplicate"`
	}
	switch err := json.Unmarshal(m.Data, &ack); {
	case err != nil:
		return false, &lostError{errBadAck}
	case ack.Error != nil:
		return false, ack.Error
	case ack.Stream == "":
		return false, &lostError{errBadAck}
	}
	return ack.Duplicate, nil
}

func isNumber(b []byte) bool {
	for _, c := range b {
		if (c < '0' || c > '9') && c != ' ' {
			return false
		}
	}
	return len(b) > 0
}

// watch gives up, in doubt, on what was in flight when the connection was lost: the answers were on it.
func (p *publisher) watch() {
	for {
		select {
		case <-p.closed:
			return
		case s, ok := <-p.status:
			if !ok {
				return
			}
			switch s {
			case nats.CONNECTED:
				p.maxPayload.Store(p.conn.MaxPayload())
			case nats.CLOSED:
				p.loseAll(nats.ErrConnectionClosed)
			default:
				p.loseAll(nats.ErrDisconnected)
			}
		}
	}
}

func (p *publisher) loseAll(cause error) {
	p.mu.Lock()
	calls := make([]*call, 0, len(p.calls))
	for _, c := range p.calls {
		calls = append(calls, c)
	}
	p.mu.Unlock()
	for _, c := range calls {
		p.slots.Release(int64(c.lose(cause)))
	}
}
