package requestreply

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/backstay-go/backstay/pubsub"
)

// Client sends requests and waits for their replies. Make it with NewClient and end it with Close. It is safe for
// concurrent use and has one subscription, whatever the number of calls.
type Client[Req, Resp any] struct {
	cfg      ClientConfig
	id       string // begins the correlation identifiers of this client
	settings settings
	request  pubsub.Codec[Req]
	reply    pubsub.Codec[Resp]
	consumer *pubsub.Consumer
	full     *Error // one value for all rejections
	done     chan struct{}
	finished chan struct{} // the subscription has ended

	mu      sync.Mutex
	ended   error // why done is closed
	last    uint64
	waiting map[string]chan pubsub.Message // by correlation identifier
	counts  ClientStats
}

// ClientStats are counts since NewClient and levels of now.
type ClientStats struct {
	// Calls counts all calls, Rejected those that ErrFull refused.
	Calls, Rejected int64
	// Replies counts replies that a call was waiting for, RemoteErrors those among them that were errors.
	Replies, RemoteErrors int64
	// InDoubt counts calls that ended in doubt.
	InDoubt int64
	// LateReplies counts replies to this client that no call was waiting for: the caller had left, or had an earlier
	// copy. OtherReplies counts those to other clients of the reply topic.
	LateReplies, OtherReplies int64
	// Outstanding is the number of calls that have not ended.
	Outstanding int
}

// NewClient subscribes to the replies and returns the client. It blocks until the subscription stands or ctx is done; ctx
// does not end the client. The error is that of a ClientConfig that Validate rejects, or of Bus.Open: a
// *pubsub.CapabilityError from a driver without temporary groups, which needs ClientConfig.ReplyGroup.
func NewClient[Req, Resp any](ctx context.Context, bus *pubsub.Bus, cfg ClientConfig, opts ...Option) (*Client[Req, Resp], error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	s := apply(opts)
	if s.publisher == nil {
		s.publisher = bus
	}
	c := &Client[Req, Resp]{
		cfg: cfg, id: rand.Text(), settings: s,
		request: codecOf[Req](s.request), reply: codecOf[Resp](s.reply),
		full: &Error{Client: cfg.Name, Topic: cfg.Topic, Err: ErrFull},
		done: make(chan struct{}), finished: make(chan struct{}),
		waiting: make(map[string]chan pubsub.Message),
	}
	consumer, err := bus.Open(ctx, pubsub.Subscription{
		Name: cfg.Name + "/reply", Topic: cfg.ReplyTopic, Group: cfg.ReplyGroup, Temporary: cfg.ReplyGroup == "",
		Concurrency: 32, // as handling is quick, this is how many to fetch at a time
	})
	if err != nil {
		return nil, fmt.Errorf("requestreply: client %q: %w", cfg.Name, err)
	}
	c.consumer = consumer
	go c.run()
	return c, nil
}

// run receives replies until the subscription ends.
func (c *Client[Req, Resp]) run() {
	defer close(c.finished)
	err := c.consumer.Run(context.Background(), c.receive)
	if err == nil {
		err = ErrClosed
	} else {
		err = fmt.Errorf("%w: %w", ErrClosed, err)
	}
	c.end(err)
}

// end makes waiting and future calls fail.
func (c *Client[Req, Resp]) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended == nil {
		c.ended = err
		close(c.done)
	}
}

// receive hands a reply to its call.
func (c *Client[Req, Resp]) receive(_ context.Context, m pubsub.Message) error {
	id := m.Header[HeaderCorrelation]
	c.mu.Lock()
	defer c.mu.Unlock()
	reply, ok := c.waiting[id]
	switch {
	case ok:
		delete(c.waiting, id)
		c.counts.Replies++
		reply <- m // it has room for one
	case strings.HasPrefix(id, c.id+"."):
		c.counts.LateReplies++
	default:
		c.counts.OtherReplies++
	}
	return nil
}

// Call sends req and waits for the reply, until ctx is done, ClientConfig.Timeout is over or the client is closed. The
// error is a *RemoteError if the server answered with one, otherwise an *Error, and says whether the request was
// executed, was not, or is in doubt.
func (c *Client[Req, Resp]) Call(ctx context.Context, req Req) (resp Resp, err error) {
	id, reply, err := c.enter()
	if err != nil {
		return resp, err
	}
	defer c.leave(id)
	if c.cfg.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.cfg.Timeout)
		defer cancel()
	}
	sendErr := c.send(ctx, id, req)
	if sendErr != nil && !sendErr.InDoubt {
		return resp, sendErr
	}
	m, err := c.await(ctx, reply, sendErr)
	if err != nil {
		return resp, err
	}
	return c.read(m)
}

// enter registers a call and gives it a correlation identifier.
func (c *Client[Req, Resp]) enter() (id string, reply chan pubsub.Message, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts.Calls++
	switch {
	case c.ended != nil:
		return "", nil, c.failed(c.ended, false)
	case c.counts.Outstanding >= c.cfg.limit():
		c.counts.Rejected++
		return "", nil, c.full
	}
	c.counts.Outstanding++
	c.last++
	id = c.id + "." + strconv.FormatUint(c.last, 10)
	reply = make(chan pubsub.Message, 1)
	c.waiting[id] = reply
	return id, reply, nil
}

func (c *Client[Req, Resp]) leave(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts.Outstanding--
	delete(c.waiting, id)
}

func (c *Client[Req, Resp]) failed(err error, inDoubt bool) *Error {
	return &Error{Client: c.cfg.Name, Topic: c.cfg.Topic, Err: err, InDoubt: inDoubt}
}

// send publishes the request.
func (c *Client[Req, Resp]) send(ctx context.Context, id string, req Req) *Error {
	payload, err := c.request.Encode(req)
	if err != nil {
		return c.failed(&permanentError{fmt.Errorf("encode the request: %w", err)}, false)
	}
	if p := c.settings.probe; p != nil {
		if n, err := p.Responders(ctx, c.cfg.Topic, c.settings.group); err == nil && n == 0 {
			return c.failed(ErrNoResponders, false)
		}
	}
	now := time.Now()
	h := pubsub.Header{HeaderReplyTo: c.cfg.ReplyTopic, HeaderCorrelation: id}
	contentType(h, c.request.ContentType)
	if key, ok := ctx.Value(keyOption{}).(string); ok && key != "" {
		h[HeaderIdempotencyKey] = key
	}
	if deadline, ok := ctx.Deadline(); ok {
		h[HeaderTimeout] = formatMillis(deadline.Sub(now))
	}
	m := pubsub.Message{ID: id, Topic: c.cfg.Topic, Header: h, Payload: payload, Time: now}
	if err := c.settings.publisher.Publish(ctx, m); err != nil {
		return c.failed(err, errors.Is(err, pubsub.ErrInDoubt))
	}
	return nil
}

// await returns the reply, or why there is none. A request whose publishing is in doubt may have been answered already,
// but there may be no reply to wait for.
func (c *Client[Req, Resp]) await(ctx context.Context, reply chan pubsub.Message, sendErr *Error) (pubsub.Message, error) {
	failure := sendErr
	if failure == nil {
		select {
		case m := <-reply:
			return m, nil
		case <-ctx.Done():
			failure = c.failed(ctx.Err(), true)
		case <-c.done:
			failure = c.failed(c.ended, true)
		}
	}
	select {
	case m := <-reply: // at the same time
		return m, nil
	default:
	}
	c.mu.Lock()
	c.counts.InDoubt++
	c.mu.Unlock()
	return pubsub.Message{}, failure
}

// read makes the result of a reply.
func (c *Client[Req, Resp]) read(m pubsub.Message) (resp Resp, err error) {
	if answered := remoteFrom(m.Header); answered != nil {
		c.mu.Lock()
		c.counts.RemoteErrors++
		c.mu.Unlock()
		return resp, answered
	}
	resp, err = c.reply.Decode(m.Payload)
	if err != nil {
		var zero Resp
		return zero, c.failed(&permanentError{fmt.Errorf("the request was executed and its reply is undecodable: %w", err)}, false)
	}
	return resp, nil
}

// Close ends the calls that wait, with ErrClosed, in doubt, and then the subscription. It returns the error of leaving
// it; calling it again returns the same. Bus.Close does it too. Close when no reply is expected any more.
func (c *Client[Req, Resp]) Close() error {
	c.end(ErrClosed)
	err := c.consumer.Close()
	<-c.finished
	return err
}

// Config returns the configuration with defaults filled in.
func (c *Client[Req, Resp]) Config() ClientConfig { return c.cfg }

// Stats returns a snapshot.
func (c *Client[Req, Resp]) Stats() ClientStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts
}

// Describe names the client for the console and telemetry.
func (c *Client[Req, Resp]) Describe() (kind, name string, config any) {
	return "requestreply.client", c.cfg.Name, c.cfg
}

// Metrics yields Stats under the names used in telemetry.
func (c *Client[Req, Resp]) Metrics() iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) {
		s := c.Stats()
		_ = yield("calls_total", float64(s.Calls)) &&
			yield("rejected_total", float64(s.Rejected)) &&
			yield("replies_total", float64(s.Replies)) &&
			yield("remote_errors_total", float64(s.RemoteErrors)) &&
			yield("in_doubt_total", float64(s.InDoubt)) &&
			yield("late_replies_total", float64(s.LateReplies)) &&
			yield("other_replies_total", float64(s.OtherReplies)) &&
			yield("outstanding", float64(s.Outstanding))
	}
}
