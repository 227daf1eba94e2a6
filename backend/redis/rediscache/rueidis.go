package rediscache

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/rueidis"

	"github.com/backstay-go/backstay/backend/redis/internal/watch"
)

// ClientOption returns options for rueidis.NewClient, for the server, sentinel or cluster at url, such as
// "redis://user:password@127.0.0.1:6379/0" or "rediss://…" for TLS. They differ from rueidis's own in that a connection
// that has gone silent is given up after three seconds instead of eleven, and an attempt to connect after one instead of
// five; dial_timeout and write_timeout in the query of the url say otherwise. It fails on a url that is none.
func ClientOption(url string) (rueidis.ClientOption, error) {
	opt, err := rueidis.ParseURL(url)
	if err != nil {
		return opt, fmt.Errorf("rediscache: ClientOption: %w", err)
	}
	if opt.Dialer.Timeout == 0 {
		opt.Dialer.Timeout = time.Second
	}
	if opt.ConnWriteTimeout == 0 {
		opt.ConnWriteTimeout = 2 * time.Second
	}
	opt.Dialer.KeepAlive = time.Second // also how long a connection may be silent before it is asked
	return opt, nil
}

// rueidisConn is a Conn on a rueidis client.
type rueidisConn struct{ client rueidis.Client }

// undated is a context whose end is known by Done alone. With a deadline, rueidis would give a connection up when a call
// has timed out on it, and an attempt to connect when the call that happened to begin it has no more time.
type undated struct{ context.Context }

func (undated) Deadline() (deadline time.Time, ok bool) { return deadline, false }

func (c rueidisConn) Get(ctx context.Context, key string) ([]byte, time.Duration, error) {
	b := c.client.B()
	answers := c.client.DoMulti(undated{ctx}, b.Pttl().Key(key).Build(), b.Get().Key(key).Build())
	value, err := bytesOf(answers[1])
	if err != nil || value == nil {
		return nil, 0, err
	}
	left, err := answers[0].AsInt64()
	if left == -2 { // it has come between the two commands
		left = int64(eternity / time.Millisecond)
	}
	return value, time.Duration(left) * time.Millisecond, answered(err)
}

func bytesOf(answer rueidis.RedisResult) ([]byte, error) {
	value, err := answer.AsBytes()
	if rueidis.IsRedisNil(err) {
		return nil, nil
	}
	if err == nil && value == nil {
		value = []byte{}
	}
	return value, answered(err)
}

func answered(err error) error {
	if answer, ok := rueidis.IsRedisErr(err); ok {
		return ServerError(answer.Error())
	}
	return err
}

func (c rueidisConn) Eval(ctx context.Context, command, script string, keys [2]string, args ...string) (Reply, error) {
	cmd := c.client.B().Arbitrary(command, script, "2").Keys(keys[0], keys[1]).Args(args...).Build()
	answer, err := c.client.Do(undated{ctx}, cmd).ToMessage()
	if err != nil {
		return Reply{}, answered(err)
	}
	if !answer.IsArray() {
		n, err := answer.AsInt64()
		return Reply{Number: n}, err
	}
	pair, err := answer.ToArray()
	if err != nil || len(pair) != 2 {
		return Reply{}, errors.Join(err, fmt.Errorf("a script answered with %d elements", len(pair)))
	}
	n, err := pair[0].AsInt64()
	if err != nil {
		return Reply{}, err
	}
	value, err := pair[1].AsBytes()
	return Reply{Number: n, Value: value}, err
}

func (c rueidisConn) Ping(ctx context.Context) error {
	return answered(c.client.Do(undated{ctx}, c.client.B().Ping().Build()).Error())
}

func (c rueidisConn) Watch(ctx context.Context, prefix string, changed func(key string), lost func()) error {
	list := func(context.Context) map[string]watch.Listener {
		listeners := map[string]watch.Listener{}
		for addr, node := range c.client.Nodes() {
			listeners[addr] = func(ctx context.Context, n *watch.Notices) error { return listen(ctx, node, prefix, n) }
		}
		return listeners
	}
	err := watch.Run(ctx, list, changed, lost)
	if errors.Is(err, watch.ErrUnsupported) {
		return ErrNoNotices
	}
	return err
}

// listen turns a connection to one server into one that gets the notices.
func listen(ctx context.Context, node rueidis.Client, prefix string, n *watch.Notices) error {
	conn, release := node.Dedicate()
	defer release()
	defer conn.Close()
	if err := track(ctx, conn, prefix); err != nil {
		return err
	}
	gone := conn.SetOnInvalidations(func(keys []rueidis.RedisMessage) {
		if keys == nil { // of all keys, or the connection ends
			n.Lost()
			return
		}
		for _, key := range keys {
			if name, err := key.ToString(); err == nil {
				n.Changed(name)
			}
		}
	})
	n.Lost()
	tick := time.NewTicker(watch.Every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case err := <-gone:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := ask(ctx, conn, "PING").Error(); err != nil {
			return err
		}
	}
}

func track(ctx context.Context, conn rueidis.DedicatedClient, prefix string) error {
	hello, err := ask(ctx, conn, "HELLO").AsMap()
	if err != nil {
		return err
	}
	proto := hello["proto"]
	if version, err := proto.AsInt64(); err != nil || version < 3 {
		return watch.ErrUnsupported
	}
	// The client may have switched tracking on in another mode.
	if err := ask(ctx, conn, "CLIENT", "TRACKING", "OFF").Error(); err != nil {
		return err
	}
	return ask(ctx, conn, "CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", prefix).Error()
}

// ask sends one command and gives the server a bounded time to answer.
func ask(ctx context.Context, conn rueidis.DedicatedClient, command ...string) rueidis.RedisResult {
	ctx, cancel := context.WithTimeout(ctx, watch.Patience)
	defer cancel()
	return conn.Do(undated{ctx}, conn.B().Arbitrary(command...).Build())
}
