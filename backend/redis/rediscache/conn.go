package rediscache

import (
	"context"
	"errors"
	"strings"
	"time"
)

// Conn is what a Store needs of a client library. New makes one of a rueidis client, package goredis one of a go-redis
// client. Its methods are safe for concurrent use. They end by their context's deadline or soon after; the Store does
// not wait for them longer than until the context ends. Watch ends with its context. An error with which Redis answered
// is returned as a ServerError.
type Conn interface {
	// Get sends PTTL and GET, in this order and in one round trip. value is nil when there is none; left is negative when
	// it has no end.
	Get(ctx context.Context, key string) (value []byte, left time.Duration, err error)
	// Eval sends EVALSHA or EVAL, as command says, of script with the two keys, which are in one slot. The args are binary.
	Eval(ctx context.Context, command, script string, keys [2]string, args ...string) (Reply, error)
	// Ping returns nil once a server answers.
	Ping(ctx context.Context) error
	// Watch listens to all servers for changes of keys with the prefix, as cache.Watcher says. It returns ErrNoNotices when
	// that cannot be done.
	Watch(ctx context.Context, prefix string, changed func(key string), lost func()) error
}

// Reply is what a script answers.
type Reply struct {
	// Number is the integer, or the first element of the array.
	Number int64
	// Value is the second element of the array, or nil.
	Value []byte
}

// ServerError is an error with which Redis answered. It begins with a code in capitals.
type ServerError string

// Error is Redis's text.
func (e ServerError) Error() string { return string(e) }

// hasCode reports whether err is Redis's error of that code.
func hasCode(err error, code string) bool {
	var answer ServerError
	return errors.As(err, &answer) && strings.HasPrefix(string(answer), code)
}

// attend returns what call does, or ctx's error once ctx has ended. Client libraries do not look at the end of a context
// at all times, in particular not while they connect; what has been left alone ends by the client's own timeouts.
func attend[T any](ctx context.Context, call func() (T, error)) (T, error) {
	if ctx.Done() == nil {
		return call()
	}
	type outcome struct {
		result T
		err    error
	}
	ended := make(chan outcome, 1)
	go func() {
		result, err := call()
		ended <- outcome{result, err}
	}()
	select {
	case o := <-ended:
		return o.result, o.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}

// held is what Redis has under a key.
type held struct {
	value []byte // nil when there is none
	left  time.Duration
}

func get(ctx context.Context, c Conn, key string) (held, error) {
	return attend(ctx, func() (held, error) {
		value, left, err := c.Get(ctx, key)
		return held{value, left}, err
	})
}

// eval runs s, which Redis knows by its digest unless it has been restarted.
func eval(ctx context.Context, c Conn, s *script, keys [2]string, args ...string) (Reply, error) {
	return attend(ctx, func() (Reply, error) {
		reply, err := c.Eval(ctx, "EVALSHA", s.digest, keys, args...)
		if hasCode(err, "NOSCRIPT") {
			reply, err = c.Eval(ctx, "EVAL", s.text, keys, args...)
		}
		return reply, err
	})
}
