package requestreply

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay/pubsub"
)

// Server runs a function for requests and publishes the replies. Its Handle is a pubsub.Handler for the requests' topic:
// concurrency, drain and leases are those of the consumer that runs it. It is safe for concurrent use and has nothing to
// close.
type Server[Req, Resp any] struct {
	cfg       ServerConfig
	settings  settings
	publisher pubsub.Publisher
	fn        func(context.Context, Req) (Resp, error)
	request   pubsub.Codec[Req]
	reply     pubsub.Codec[Resp]

	executed, failed, panicked, expired, undecodable, unanswered atomic.Int64
}

// ServerStats are counts since NewServer.
type ServerStats struct {
	// Executed counts runs of the function that have ended, Failed those among them that ended with an error, Panicked
	// those that panicked.
	Executed, Failed, Panicked int64
	// Expired counts requests that came past their deadline, Undecodable those that could not be read; none of them was
	// run.
	Expired, Undecodable int64
	// Unanswered counts requests whose reply could not be published. They are delivered again.
	Unanswered int64
}

// NewServer makes a Server that runs fn and publishes replies through p, usually the *pubsub.Bus. It panics on nil
// arguments.
func NewServer[Req, Resp any](p pubsub.Publisher, cfg ServerConfig, fn func(context.Context, Req) (Resp, error), opts ...Option) *Server[Req, Resp] {
	if p == nil || fn == nil {
		panic("requestreply: NewServer without a publisher or a function")
	}
	s := apply(opts)
	return &Server[Req, Resp]{
		cfg: cfg.withDefaults(), settings: s, publisher: p, fn: fn,
		request: codecOf[Req](s.request), reply: codecOf[Resp](s.reply),
	}
}

// Handle is the pubsub.Handler for requests. It returns nil once the reply is accepted by the broker, also when the reply
// is an error. It returns an error, so that the request is delivered again, when the reply cannot be published or when a
// drain has cut the function short; a message that is not a request goes to the dead-letter topic.
func (s *Server[Req, Resp]) Handle(ctx context.Context, m pubsub.Message) error {
	to, id := m.Header[HeaderReplyTo], m.Header[HeaderCorrelation]
	if id == "" || !isReplyTopic(m.Topic, to) || (pubsub.Message{Topic: to}).Validate() != nil {
		s.undecodable.Add(1)
		return pubsub.DeadLetter(fmt.Errorf("requestreply: server %q: not a request: correlation %q, reply to %q", s.cfg.Name, id, to))
	}
	payload, err := s.execute(ctx, m)
	if err != nil && errors.Is(context.Cause(ctx), pubsub.ErrDrainTimeout) {
		return fmt.Errorf("requestreply: server %q: cut short by a drain: %w", s.cfg.Name, err)
	}
	err = s.answer(ctx, m, payload, err)
	if err != nil && permanent(err) && payload != nil {
		err = s.answer(ctx, m, nil, &RemoteError{Code: CodeUnsendable, Text: err.Error(), Final: true})
	}
	if err != nil {
		s.unanswered.Add(1)
		return fmt.Errorf("requestreply: server %q: reply: %w", s.cfg.Name, err)
	}
	return nil
}

// permanent reports whether the failure of publishing one message is for good.
func permanent(err error) bool {
	var p interface{ Permanent() bool }
	return errors.As(err, &p) && p.Permanent()
}

// execute runs the function, unless the request is late or unreadable, and encodes the result.
func (s *Server[Req, Resp]) execute(ctx context.Context, m pubsub.Message) ([]byte, error) {
	deadline, limited := s.deadline(m, time.Now())
	if limited {
		if time.Until(deadline) <= 0 {
			s.expired.Add(1)
			return nil, &RemoteError{Code: CodeExpired, Text: "the request came past its deadline", NotExecuted: true}
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline)
		defer cancel()
	}
	req, err := caught(func() (Req, error) { return s.request.Decode(m.Payload) })
	if err != nil {
		s.undecodable.Add(1)
		return nil, &RemoteError{Code: CodeUndecodable, Text: textFor(err), NotExecuted: true, Final: true}
	}
	key := m.Header[HeaderIdempotencyKey]
	if key == "" {
		key = m.Header[HeaderCorrelation]
	}
	resp, err := s.run(context.WithValue(ctx, keyReceived{}, key), req)
	if err != nil {
		return nil, err
	}
	payload, err := caught(func() ([]byte, error) { return s.reply.Encode(resp) })
	if err != nil {
		return nil, &RemoteError{Code: CodeUnsendable, Text: textFor(err), Final: true}
	}
	if payload == nil {
		payload = []byte{}
	}
	return payload, nil
}

// run calls the function once and counts.
func (s *Server[Req, Resp]) run(ctx context.Context, req Req) (Resp, error) {
	resp, err := caught(func() (Resp, error) { return s.fn(ctx, req) })
	s.executed.Add(1)
	if err != nil {
		s.failed.Add(1)
		if _, ok := err.(*panicError); ok {
			s.panicked.Add(1)
		}
	}
	return resp, err
}

// deadline is when the caller will have left, as far as this side can know.
func (s *Server[Req, Resp]) deadline(m pubsub.Message, now time.Time) (time.Time, bool) {
	left, ok := parseMillis(m.Header[HeaderTimeout])
	if !ok {
		return time.Time{}, false
	}
	deadline := now.Add(left)
	if !m.Time.IsZero() {
		if sent := m.Time.Add(left).Add(max(s.cfg.MaxClockSkew, 0)); sent.Before(deadline) {
			deadline = sent
		}
	}
	return deadline, true
}

// answerTimeout bounds the publishing of a reply.
const answerTimeout = 10 * time.Second

// answer publishes the reply: a result, or an error if err is not nil. It does so also when the context has ended while the
// function ran, since the request would be run again otherwise.
func (s *Server[Req, Resp]) answer(ctx context.Context, m pubsub.Message, payload []byte, err error) error {
	id := m.Header[HeaderCorrelation]
	h := pubsub.Header{HeaderCorrelation: id}
	if err != nil {
		s.settings.onError(ctx, m, err)
		remote(err).header(h)
	} else {
		contentType(h, s.reply.ContentType)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), answerTimeout)
	defer cancel()
	return s.publisher.Publish(ctx, pubsub.Message{ID: id + ".reply", Topic: m.Header[HeaderReplyTo], Header: h, Payload: payload})
}

// panicError is a panic of the function or a codec.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string { return fmt.Sprintf("panic: %v\n%s", e.value, e.stack) }
func (e *panicError) Code() string  { return CodePanic }

func caught[T any](fn func() (T, error)) (v T, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &panicError{r, debug.Stack()}
		}
	}()
	return fn()
}

// Config returns the configuration with defaults filled in.
func (s *Server[Req, Resp]) Config() ServerConfig { return s.cfg }

// Stats returns a snapshot.
func (s *Server[Req, Resp]) Stats() ServerStats {
	return ServerStats{
		Executed: s.executed.Load(), Failed: s.failed.Load(), Panicked: s.panicked.Load(),
		Expired: s.expired.Load(), Undecodable: s.undecodable.Load(), Unanswered: s.unanswered.Load(),
	}
}

// Describe names the server for the console and telemetry.
func (s *Server[Req, Resp]) Describe() (kind, name string, config any) {
	return "requestreply.server", s.cfg.Name, s.cfg
}

// Metrics yields Stats under the names used in telemetry.
func (s *Server[Req, Resp]) Metrics() iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) {
		t := s.Stats()
		_ = yield("executed_total", float64(t.Executed)) &&
			yield("failed_total", float64(t.Failed)) &&
			yield("panicked_total", float64(t.Panicked)) &&
			yield("expired_total", float64(t.Expired)) &&
			yield("undecodable_total", float64(t.Undecodable)) &&
			yield("unanswered_total", float64(t.Unanswered))
	}
}
