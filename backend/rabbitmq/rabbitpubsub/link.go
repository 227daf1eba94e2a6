package rabbitpubsub

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/backstay-go/backstay/pubsub"
)

const (
	// dialTimeout bounds one attempt to connect.
	dialTimeout = 10 * time.Second
	// redialFirst and redialMost are the waits between attempts.
	redialFirst = 50 * time.Millisecond
	redialMost  = 2 * time.Second
)

// dialer makes connections to one of several servers.
type dialer struct {
	urls      []string
	name      string
	heartbeat time.Duration
	tls       *tls.Config
	sasl      []amqp.Authentication
	dial      func(ctx context.Context, network, addr string) (net.Conn, error)
}

// session is one connection, from its opening to its loss.
type session struct {
	conn      *amqp.Connection
	net       *conn
	heartbeat time.Duration
	lost      chan struct{} // closed when the connection is lost
	cause     error         // why, once lost is closed
	blocked   atomic.Pointer[blocking]
}

// blocking is a time during which the broker takes no messages.
type blocking struct {
	reason string
	over   chan struct{}
}

// connect tries the servers in turn, beginning anywhere.
func (d *dialer) connect(ctx context.Context) (*session, error) {
	var errs []error
	first := rand.IntN(len(d.urls))
	for i := range d.urls {
		s, err := d.connectTo(ctx, d.urls[(first+i)%len(d.urls)])
		if err == nil {
			return s, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

func (d *dialer) connectTo(ctx context.Context, server string) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	s := &session{lost: make(chan struct{})}
	properties := amqp.NewConnectionProperties()
	properties.SetClientConnectionName(d.name)
	cfg := amqp.Config{
		Heartbeat: d.heartbeat, TLSClientConfig: d.tls.Clone(), SASL: d.sasl, Properties: properties,
		Dial: func(network, addr string) (net.Conn, error) {
			under, err := d.dial(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			end, _ := ctx.Deadline()
			_ = under.SetDeadline(end) // the client takes it back once the connection is open
			s.net = newConn(under)
			return s.net, nil
		},
	}
	opened := make(chan error, 1)
	go func() {
		var err error
		s.conn, err = amqp.DialConfig(server, cfg)
		opened <- err
	}()
	var err error
	select {
	case err = <-opened:
	case <-ctx.Done():
		go d.abandon(s, opened)
		return nil, fmt.Errorf("connecting: %w", ctx.Err())
	}
	if err == nil {
		err = supported(s.conn.Properties)
	}
	if err != nil {
		if s.net != nil {
			_ = s.net.Close()
		}
		return nil, err
	}
	s.heartbeat = s.conn.Config.Heartbeat
	s.watch()
	return s, nil
}

// abandon closes what is opened too late; the deadline of the network connection bounds the wait.
func (d *dialer) abandon(s *session, opened <-chan error) {
	if err := <-opened; err == nil {
		_ = s.conn.CloseDeadline(time.Now().Add(lastWords))
	}
	if s.net != nil {
		_ = s.net.Close()
	}
}

// supported refuses a server without quorum queues.
func supported(properties amqp.Table) error {
	var major, minor int
	product, _ := properties["product"].(string)
	version, _ := properties["version"].(string)
	if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); product == "RabbitMQ" && err == nil && (major < 3 || major == 3 && minor < 10) {
		return fmt.Errorf("version %s of %s is too old: 3.10 or later is needed", version, product)
	}
	return nil
}

// watch notes when the broker blocks the connection, and when it is lost.
func (s *session) watch() {
	closed := s.conn.NotifyClose(make(chan *amqp.Error, 1))
	blocked := s.conn.NotifyBlocked(make(chan amqp.Blocking, 16))
	go func() {
		for b := range blocked {
			s.block(b)
		}
	}()
	go func() {
		err, ok := <-closed
		s.cause = amqp.ErrClosed
		if ok && err != nil {
			s.cause = err
		}
		_ = s.net.Close()
		close(s.lost)
	}()
}

func (s *session) block(b amqp.Blocking) {
	old := s.blocked.Load()
	switch {
	case b.Active && old == nil:
		s.blocked.Store(&blocking{reason: b.Reason, over: make(chan struct{})})
	case !b.Active && old != nil:
		s.blocked.Store(nil)
		close(old.over)
	}
}

// end closes the connection in an orderly way, within the time.
func (s *session) end(within time.Duration) {
	_ = s.conn.CloseDeadline(time.Now().Add(within))
	_ = s.net.Close()
	<-s.lost
}

// awaitDone is await for a call without a result.
func awaitDone(ctx context.Context, call func() error) error {
	_, err := await(ctx, func() (struct{}, error) { return struct{}{}, call() }, nil)
	return err
}

// channel opens a channel, given up when ctx ends or the connection is lost.
func (s *session) channel(ctx context.Context) (*amqp.Channel, error) {
	return await(ctx, s.conn.Channel, func(ch *amqp.Channel) { _ = ch.Close() })
}

// await makes a call of the client, which knows no contexts, and leaves it behind when ctx ends. What it then brings
// is discarded.
func await[T any](ctx context.Context, call func() (T, error), discard func(T)) (T, error) {
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		v, err := call()
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.v, r.err
	case <-ctx.Done():
	}
	go func() {
		if r := <-done; r.err == nil && discard != nil {
			discard(r.v)
		}
	}()
	var none T
	return none, ctx.Err()
}

// link keeps a connection: when it is lost, another is made, for as long as it takes.
type link struct {
	dialer *dialer
	again  *atomic.Uint64 // counts connections after the first
	stop   context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	current *session
	failure error         // of the last attempt
	changed chan struct{} // closed when the fields above change
	closed  bool
}

// newLink connects once, and fails if that does.
func newLink(ctx context.Context, d *dialer, again *atomic.Uint64) (*link, error) {
	s, err := d.connect(ctx)
	if err != nil {
		return nil, err
	}
	l := &link{dialer: d, again: again, current: s, changed: make(chan struct{})}
	running, stop := context.WithCancel(context.Background())
	l.stop = stop
	l.wg.Go(func() { l.run(running, s) })
	return l, nil
}

func (l *link) run(ctx context.Context, s *session) {
	for {
		select {
		case <-ctx.Done():
			s.end(closeTimeout)
			return
		case <-s.lost:
		}
		l.set(nil, s.cause)
		if s = l.redial(ctx); s == nil {
			return
		}
		l.again.Add(1)
		l.set(s, nil)
	}
}

func (l *link) redial(ctx context.Context) *session {
	for wait := redialFirst; ; wait = min(2*wait, redialMost) {
		timer := time.NewTimer(wait/2 + rand.N(wait/2))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		s, err := l.dialer.connect(ctx)
		if err == nil {
			return s
		}
		l.set(nil, err)
	}
}

func (l *link) set(s *session, failure error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.current, l.failure = s, failure
	close(l.changed)
	l.changed = make(chan struct{})
}

// get waits for a connection.
func (l *link) get(ctx context.Context) (*session, error) {
	for {
		l.mu.Lock()
		s, failure, changed, closed := l.current, l.failure, l.changed, l.closed
		l.mu.Unlock()
		if closed {
			return nil, pubsub.ErrClosed
		}
		if s != nil {
			select {
			case <-s.lost:
			default:
				return s, nil
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if failure != nil {
				return nil, fmt.Errorf("not connected (%w): %w", failure, ctx.Err())
			}
			return nil, ctx.Err()
		}
	}
}

func (l *link) close() {
	l.mu.Lock()
	closed := l.closed
	l.closed = true
	if !closed {
		close(l.changed)
		l.changed = make(chan struct{})
	}
	l.mu.Unlock()
	l.stop()
	l.wg.Wait()
}

// splitURLs reads a list with commas.
func splitURLs(list string) ([]string, error) {
	urls := strings.Split(list, ",")
	for i := range urls {
		urls[i] = strings.TrimSpace(urls[i])
		if _, err := amqp.ParseURI(urls[i]); err != nil {
			return nil, fmt.Errorf("the URL in place %d of the list: %w", i+1, redact(err))
		}
	}
	return urls, nil
}

// redact keeps what an error quotes of a URL out of logs: there is a password in it, and one with an unescaped '/', '?' or
// '#' is quoted as a port.
func redact(err error) error {
	if _, ok := errors.AsType[*url.Error](err); ok {
		return errors.New("it cannot be parsed; what is special in a password must be escaped with %")
	}
	return err
}
