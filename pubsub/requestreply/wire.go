package requestreply

import (
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/backstay-go/backstay/internal/failure"
	"github.com/backstay-go/backstay/pubsub"
)

// Headers of a request.
const (
	// HeaderReplyTo is the topic for the reply.
	HeaderReplyTo = "backstay-reply-to"
	// HeaderCorrelation names the call. The reply has it too.
	HeaderCorrelation = "backstay-correlation-id"
	// HeaderTimeout is how long, from Message.Time on, the caller waits: milliseconds, in decimal. Absent: no limit.
	HeaderTimeout = "backstay-timeout-ms"
	// HeaderIdempotencyKey is the key that the caller has set, if it has.
	HeaderIdempotencyKey = "backstay-idempotency-key"
)

// Headers of a reply that is an error.
const (
	// HeaderErrorCode is RemoteError.Code. A reply without it is a result.
	HeaderErrorCode = "backstay-error-code"
	// HeaderErrorText is RemoteError.Text.
	HeaderErrorText = "backstay-error-text"
	// HeaderErrorPermanent is "true" for RemoteError.Final.
	HeaderErrorPermanent = "backstay-error-permanent"
	// HeaderErrorNotExecuted is "true" for RemoteError.NotExecuted.
	HeaderErrorNotExecuted = "backstay-error-not-executed"
	// HeaderErrorRetryAfter is RemoteError.After: milliseconds, in decimal.
	HeaderErrorRetryAfter = "backstay-error-retry-after-ms"
)

const (
	maxCode = 64
	maxText = 1 << 10
)

// formatMillis rounds up, so that what is left of a millisecond is not nothing.
func formatMillis(d time.Duration) string {
	ms := d / time.Millisecond
	if d%time.Millisecond > 0 {
		ms++
	}
	return strconv.FormatInt(int64(max(ms, 0)), 10)
}

// parseMillis reads a duration; what is too long for one is the longest.
func parseMillis(s string) (time.Duration, bool) {
	ms, err := strconv.ParseUint(s, 10, 63)
	if err != nil {
		return 0, false
	}
	if ms > math.MaxInt64/uint64(time.Millisecond) {
		return math.MaxInt64, true
	}
	return time.Duration(ms) * time.Millisecond, true
}

// remote describes an error of a Server's function for the caller.
func remote(err error) *RemoteError {
	e := RemoteError{
		Code: CodeError, Text: textFor(err),
		NotExecuted: failure.Rejected(err), Final: failure.Permanent(err), After: failure.RetryAfter(err),
	}
	switch own := err.(type) {
	case *RemoteError:
		e = *own
	case interface{ Code() string }:
		e.Code = own.Code()
	}
	if !isCode(e.Code) {
		e.Code = CodeError
	}
	e.Text = oneLine(e.Text)
	return &e
}

// textFor is what callers may see of err: of a panic, no more than that it happened.
func textFor(err error) string {
	if _, ok := err.(*panicError); ok {
		return "panic"
	}
	return err.Error()
}

func isCode(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte("_-.", c) < 0 {
			return false
		}
	}
	return s != "" && len(s) <= maxCode
}

// oneLine makes a text fit for a header of every broker.
func oneLine(text string) string {
	if len(text) > 4*maxText { // enough of it, whatever white space goes
		text = text[:4*maxText]
	}
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "")), " ")
	if len(text) > maxText {
		text = text[:maxText]
		for !utf8.ValidString(text) {
			text = text[:len(text)-1]
		}
	}
	return text
}

// header writes e into the headers of a reply.
func (e *RemoteError) header(h pubsub.Header) {
	h[HeaderErrorCode], h[HeaderErrorText] = e.Code, e.Text
	if e.Final {
		h[HeaderErrorPermanent] = "true"
	}
	if e.NotExecuted {
		h[HeaderErrorNotExecuted] = "true"
	}
	if e.After > 0 {
		h[HeaderErrorRetryAfter] = formatMillis(e.After)
	}
}

// remoteFrom reads what header wrote; nil means that the reply is a result. The other side is not believed to have kept
// the limits.
func remoteFrom(h pubsub.Header) *RemoteError {
	code, failed := h[HeaderErrorCode]
	if !failed {
		return nil
	}
	if !isCode(code) {
		code = CodeError
	}
	after, _ := parseMillis(h[HeaderErrorRetryAfter])
	return &RemoteError{
		Code: code, Text: oneLine(h[HeaderErrorText]),
		Final: h[HeaderErrorPermanent] == "true", NotExecuted: h[HeaderErrorNotExecuted] == "true", After: after,
	}
}

// contentType adds the header for a payload of that type, if it has one.
func contentType(h pubsub.Header, mediaType string) {
	if mediaType != "" {
		h["content-type"] = mediaType
	}
}
