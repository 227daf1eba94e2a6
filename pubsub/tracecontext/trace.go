package tracecontext

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// Trace is the trace that a request is part of. It is a comparable value; the zero Trace is no trace.
type Trace struct {
	// ID is the trace-id.
	ID [16]byte
	// Parent is the parent-id: the caller's span.
	Parent [8]byte
	// Flags are the trace-flags. See Sampled.
	Flags byte
	// State is the tracestate as received, empty if there was none or it was invalid.
	State string
}

// flagSampled is the one flag of version 00.
const flagSampled = 1

// Sampled reports whether the caller may have recorded trace data.
func (t Trace) Sampled() bool { return t.Flags&flagSampled != 0 }

// Valid reports whether t is a trace: neither of its IDs is all zero.
func (t Trace) Valid() bool { return t.ID != [16]byte{} && t.Parent != [8]byte{} }

// Traceparent is the traceparent of t in version 00.
func (t Trace) Traceparent() string {
	b := make([]byte, 0, parentLen)
	b = append(b, "00-"...)
	b = hex.AppendEncode(b, t.ID[:])
	b = append(b, '-')
	b = hex.AppendEncode(b, t.Parent[:])
	b = append(b, '-')
	b = hex.AppendEncode(b, []byte{t.Flags})
	return string(b)
}

type contextKey struct{}

// NewContext returns a child of ctx that carries t. The zero Trace hides one that ctx may carry.
func NewContext(ctx context.Context, t Trace) context.Context {
	return context.WithValue(ctx, contextKey{}, t)
}

// FromContext returns the trace that ctx carries, if it carries a valid one.
func FromContext(ctx context.Context) (Trace, bool) {
	t, _ := ctx.Value(contextKey{}).(Trace)
	return t, t.Valid()
}

// parentLen is the length of a traceparent of version 00.
const parentLen = 2 + 1 + 32 + 1 + 16 + 1 + 2

// Parse reads the values of the headers traceparent and tracestate. It fails if the first is invalid; if only the
// second is, State is empty.
func Parse(traceparent, tracestate string) (Trace, error) {
	t, err := parseParent(strings.Trim(traceparent, " \t"))
	if err != nil {
		return Trace{}, fmt.Errorf("tracecontext: traceparent: %w", err)
	}
	if state := strings.Trim(tracestate, " \t"); state != "" && checkState(state) == nil {
		t.State = truncate(state)
	}
	return t, nil
}

func parseParent(s string) (Trace, error) {
	var t Trace
	var version, flags [1]byte
	if len(s) < parentLen || s[2] != '-' || s[35] != '-' || s[52] != '-' {
		return t, errors.New("not four fields of 2, 32, 16 and 2 digits, joined by '-'")
	}
	for _, field := range []struct {
		to   []byte
		from string
	}{{version[:], s[:2]}, {t.ID[:], s[3:35]}, {t.Parent[:], s[36:52]}, {flags[:], s[53:parentLen]}} {
		if !decodeLower(field.to, field.from) {
			return t, fmt.Errorf("%q is not in lower-case hexadecimal digits", field.from)
		}
	}
	switch {
	case version[0] == 0xff:
		return t, errors.New("version ff is invalid")
	case version[0] == 0 && len(s) != parentLen, len(s) > parentLen && s[parentLen] != '-':
		return t, errors.New("something follows the flags")
	case !t.Valid():
		return t, errors.New("an ID is all zero")
	}
	t.Flags = flags[0]
	if version[0] != 0 {
		t.Flags &= flagSampled // what else it says there is not known here
	}
	return t, nil
}

// decodeLower decodes hexadecimal digits of which none is in upper case.
func decodeLower(to []byte, from string) bool {
	_, err := hex.Decode(to, []byte(from))
	return err == nil && strings.ToLower(from) == from
}
