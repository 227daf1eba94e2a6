package pubsub

import (
	"encoding/json"
	"fmt"
	"mime"
	"runtime/debug"
)

// Codec turns values into payloads and back. It is plain data; its functions are called by many goroutines at a time.
// One that panics has failed.
type Codec[T any] struct {
	// ContentType is the media type of the payloads, such as "application/json". It travels in the header
	// "content-type". Empty: no header, and payloads of every type are decoded.
	ContentType string
	// Encode makes the payload of a value. Required.
	Encode func(T) ([]byte, error)
	// Decode makes a value of a payload, whatever bytes somebody has published. Required.
	Decode func([]byte) (T, error)
}

// JSONCodec is the Codec of package encoding/json, as JSON uses it.
func JSONCodec[T any]() Codec[T] {
	return Codec[T]{
		ContentType: "application/json",
		Encode:      func(v T) ([]byte, error) { return json.Marshal(v) },
		Decode: func(payload []byte) (v T, err error) {
			err = json.Unmarshal(payload, &v)
			return v, err
		},
	}
}

func (c *Codec[T]) encode(v T) (payload []byte, err error) {
	defer catch(&err)
	return c.Encode(v)
}

func (c *Codec[T]) decode(payload []byte) (v T, err error) {
	defer catch(&err)
	return c.Decode(payload)
}

// catch is deferred, to turn a panic of a codec into its error.
func catch(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("codec panicked: %v\n%s", r, debug.Stack())
	}
}

// accepts reports whether a payload of the given type is one of want: the same media type, and where both have a
// parameter, such as charset, the same value.
func accepts(want, got string) bool {
	if want == got {
		return true
	}
	wantType, wantParams, err := mime.ParseMediaType(want)
	if err != nil {
		return false
	}
	gotType, gotParams, err := mime.ParseMediaType(got)
	if err != nil || gotType != wantType {
		return false
	}
	for name, value := range wantParams {
		if other, ok := gotParams[name]; ok && other != value {
			return false
		}
	}
	return true
}
