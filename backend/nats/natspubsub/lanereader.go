package natspubsub

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// readerExpires is how long the server keeps a request, readerInactive how long it keeps a consumer without any.
const (
	readerExpires  = 5 * time.Second
	readerInactive = 30 * time.Second
)

// listen subscribes to what is sent to the member. It is called with the mutex held.
func (r *laneReceiver) listen() error {
	for subject, handler := range map[string]nats.MsgHandler{
		r.inbox + ".*.*": r.onMessage,
		r.store.gossip(): r.onGossip,
	} {
		sub, err := r.driver.conn.Subscribe(subject, handler)
		if err != nil {
			return err
		}
		r.subs = append(r.subs, sub)
	}
	return nil
}

// onMessage takes in a message, or the end of a request. It runs on the subscription's goroutine.
func (r *laneReceiver) onMessage(m *nats.Msg) {
	if !strings.HasPrefix(m.Reply, ackPrefix) {
		r.onAnswer(m)
		return
	}
	index, err := strconv.Atoi(m.Subject[strings.LastIndexByte(m.Subject, '.')+1:])
	from, errReply := parseReply(m.Reply)
	if err != nil || errReply != nil || index >= len(r.lanes) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.lanes[index]
	if !l.owned || l.reader != from.consumer {
		return // of an earlier reader
	}
	if from.number != l.number+1 {
		l.unread() // one got lost
		signal(r.poke)
		return
	}
	l.number++
	l.pull.left = max(l.pull.left-1, 0)
	l.pull.failures = 0
	l.arrive(m, from)
	signal(r.wake)
}

// onAnswer notes the end of a request to the consumer of a lane.
func (r *laneReceiver) onAnswer(m *nats.Msg) {
	laneText, numberText, _ := strings.Cut(strings.TrimPrefix(m.Subject, r.inbox+"."), ".")
	index, err1 := strconv.Atoi(laneText)
	number, err2 := strconv.ParseUint(numberText, 10, 64)
	if err1 != nil || err2 != nil || index < 0 || index >= len(r.lanes) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.lanes[index]
	if !l.owned || number < l.pull.first {
		return
	}
	l.pull.answer(m.Header.Get("Status"), m.Header.Get("Description"), m.Header.Get("Nats-Pending-Messages"))
	if l.pull.suspect || l.pull.refusal != nil {
		l.unread()
		signal(r.poke)
	}
	signal(r.wake)
}

// unread has the lane be read by a new consumer, from the next message on.
func (l *lane) unread() {
	l.reader = ""
	l.pull.forget()
	l.pull.suspect, l.pull.refusal = false, nil
}

// ask returns the request to send for more messages, if it is time.
func (l *lane) ask() (laneQuery, bool) {
	p := &l.pull
	waiting := len(l.entries) - l.cursor
	if p.left == 0 && !p.deadline.IsZero() && time.Since(p.deadline) > readerInactive/2 {
		l.unread() // it may be gone, since nobody has asked it for a long time
		p.deadline = time.Time{}
	}
	if l.reader == "" || p.left+waiting > laneAhead/2 {
		return laneQuery{}, false
	}
	return laneQuery{p.next(laneAhead-p.left-waiting, readerExpires), l.index, l.reader}, true
}

// laneQuery is a request to the reader of a lane.
type laneQuery struct {
	query
	lane   int
	reader string
}

func (r *laneReceiver) request(q laneQuery) error {
	body := fmt.Appendf(nil, `{"batch":%d,"expires":%d}`, q.batch, int64(readerExpires))
	api := "$JS.API.CONSUMER.MSG.NEXT." + r.stream + "." + q.reader
	if err := r.driver.conn.PublishRequest(api, fmt.Sprintf("%s.%d.%d", r.inbox, q.lane, q.number), body); err != nil {
		return r.wrap(err)
	}
	return nil
}

// read makes consumers for the lanes that have none. It fails when the stream is gone.
func (r *laneReceiver) read(ctx context.Context) error {
	r.mu.Lock()
	now := time.Now()
	if n := r.driver.conn.Stats().Reconnects; n != r.reconnects {
		r.reconnects = n
		for _, l := range r.lanes {
			l.unread() // what was sent to the former connection is lost
		}
	}
	var due []*lane
	for _, l := range r.lanes {
		if l.owned && l.reader != "" && l.pull.left > 0 && now.After(l.pull.deadline) {
			l.unread() // the server has not even said that time is up
		}
		if l.owned && !l.leaving && l.reader == "" && !now.Before(l.pull.retryAt) {
			due = append(due, l)
		}
	}
	r.mu.Unlock()
	errs := make(chan error, len(due))
	for _, l := range due {
		go func() { errs <- r.readLane(ctx, l) }()
	}
	var gone error
	for range due {
		if err := <-errs; errors.Is(err, jetstream.ErrStreamNotFound) {
			gone = err
		}
	}
	return gone
}

// readLane makes a consumer for one lane. It lives in one server's memory: when it is lost, the next begins where it ended.
func (r *laneReceiver) readLane(ctx context.Context, l *lane) error {
	cfg := jetstream.ConsumerConfig{
		Name:              "lane-" + rand.Text(),
		Description:       fmt.Sprintf("lane %d of group %s", l.index, r.sub.Group),
		DeliverPolicy:     jetstream.DeliverAllPolicy,
		AckPolicy:         jetstream.AckNonePolicy,
		FilterSubject:     l.subject,
		InactiveThreshold: readerInactive,
		MemoryStorage:     true,
		Replicas:          1,
	}
	r.mu.Lock()
	epoch := l.record.Epoch
	switch {
	case l.last > 0:
		cfg.DeliverPolicy, cfg.OptStartSeq = jetstream.DeliverByStartSequencePolicy, l.last+1
	case l.record.Start != nil:
		cfg.DeliverPolicy, cfg.OptStartTime = jetstream.DeliverByStartTimePolicy, l.record.Start
	}
	r.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	_, err := r.driver.js.CreateConsumer(ctx, r.stream, cfg)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		l.pull.fail(time.Now())
		l.pull.suspect = false
		return err
	}
	if !l.owned || l.record.Epoch != epoch {
		r.forgetReader(cfg.Name)
		return nil
	}
	l.pull.forget()
	l.reader, l.number = cfg.Name, 0
	signal(r.wake)
	return nil
}

// forgetReader deletes a consumer; one that stays ends by itself.
func (r *laneReceiver) forgetReader(name string) {
	if name != "" {
		_ = r.driver.conn.Publish("$JS.API.CONSUMER.DELETE."+r.stream+"."+name, nil)
	}
}
