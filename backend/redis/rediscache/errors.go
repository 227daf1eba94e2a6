package rediscache

import (
	"errors"
	"fmt"
)

var (
	// ErrUnanswered says that no answer came: Redis is away, or slower than the context or the client's timeouts
	// allow. Whether a Set, Delete or Fill was made is in doubt; it may be repeated.
	ErrUnanswered = errors.New("no answer from Redis")
	// ErrRefused says that Redis answered with an error, for instance because it is out of memory or read-only. Nothing
	// was changed.
	ErrRefused = errors.New("refused by Redis")
	// ErrEncode says that the codec failed on a value given to Set or Fill. The key's old entry was removed and its
	// lease voided, as for a value that is stored.
	ErrEncode = errors.New("value cannot be encoded: give WithCodec one that can")
	// ErrNoNotices says that the client's connections speak RESP2, which carries no notices: leave RESP3 enabled.
	ErrNoNotices = errors.New("connections use RESP2, which cannot carry notices: enable RESP3")
)

// Error is every error of a Store's methods. errors.Is finds both its Kind and its Cause.
type Error struct {
	// Name is the store's Config.Name.
	Name string
	// Op is what was asked for: "get", "lease", "set", "delete", "fill", "release", "ping" or "watch".
	Op string
	// Kind is ErrUnanswered, ErrRefused, ErrEncode or ErrNoNotices.
	Kind error
	// Cause is the error of the context, the client, Redis or the codec; nil with ErrNoNotices.
	Cause error
}

// Error describes the failure, beginning with the package and the store's name.
func (e *Error) Error() string {
	text := fmt.Sprintf("rediscache %q: %s: %v", e.Name, e.Op, e.Kind)
	if e.Cause != nil {
		text += ": " + e.Cause.Error()
	}
	return text
}

// Is reports whether target is the Kind.
func (e *Error) Is(target error) bool { return target == e.Kind }

// Unwrap returns the Cause.
func (e *Error) Unwrap() error { return e.Cause }

// Permanent reports whether the same call must fail again: the value cannot be encoded, or the client has no notices.
func (e *Error) Permanent() bool { return e.Kind == ErrEncode || e.Kind == ErrNoNotices }
