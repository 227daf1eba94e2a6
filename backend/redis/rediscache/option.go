package rediscache

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"unsafe"
)

// Option gives a Store behaviour that is not data.
type Option func(*options)

type options struct {
	codec any // codec[V]
	keys  any // keys[K]
}

type codec[V any] struct {
	encode func(dst []byte, value V) ([]byte, error)
	decode func(data []byte) (V, error)
}

type keys[K comparable] struct {
	encode func(key K) string
	decode func(text string) (K, error)
}

// WithCodec sets how values are written and read. encode appends to dst and returns the result; decode may keep data,
// which nobody changes, and must not change it. What decode refuses is treated as not there, and replaced. Default:
// strings and byte slices as they are, without a copy on the way out, and everything else as JSON.
func WithCodec[V any](encode func(dst []byte, value V) ([]byte, error), decode func(data []byte) (V, error)) Option {
	return func(o *options) { o.codec = codec[V]{encode, decode} }
}

// WithKey sets how keys are written: encode must give different texts for different keys, and decode is its inverse,
// which Watch needs. Default: keys whose kind is a string as they are, integers in decimal; New refuses others.
func WithKey[K comparable](encode func(key K) string, decode func(text string) (K, error)) Option {
	return func(o *options) { o.keys = keys[K]{encode, decode} }
}

func codecOf[V any](given any) (codec[V], error) {
	if given == nil {
		return defaultCodec[V](), nil
	}
	c, ok := given.(codec[V])
	if !ok || c.encode == nil || c.decode == nil {
		return c, fmt.Errorf("WithCodec: it needs two functions for values of type %v", reflect.TypeFor[V]())
	}
	return c, nil
}

func defaultCodec[V any]() codec[V] {
	var c any
	switch any(*new(V)).(type) {
	case []byte:
		c = codec[[]byte]{
			func(dst, value []byte) ([]byte, error) { return append(dst, value...), nil },
			func(data []byte) ([]byte, error) { return data, nil },
		}
	case string:
		c = codec[string]{
			func(dst []byte, value string) ([]byte, error) { return append(dst, value...), nil },
			func(data []byte) (string, error) { return unsafe.String(unsafe.SliceData(data), len(data)), nil },
		}
	default:
		return codec[V]{appendJSON[V], decodeJSON[V]}
	}
	return c.(codec[V])
}

func appendJSON[V any](dst []byte, value V) ([]byte, error) {
	text, err := json.Marshal(value)
	return append(dst, text...), err
}

func decodeJSON[V any](data []byte) (V, error) {
	var value V
	err := json.Unmarshal(data, &value)
	return value, err
}

func keysOf[K comparable](given any) (keys[K], error) {
	if given == nil {
		return defaultKeys[K]()
	}
	k, ok := given.(keys[K])
	if !ok || k.encode == nil || k.decode == nil {
		return k, fmt.Errorf("WithKey: it needs two functions for keys of type %v", reflect.TypeFor[K]())
	}
	return k, nil
}

func defaultKeys[K comparable]() (keys[K], error) {
	t := reflect.TypeFor[K]()
	switch t.Kind() {
	case reflect.String:
		return keys[K]{
			// K is a string under another name at most; reflection would allocate on every call.
			func(key K) string { return *(*string)(unsafe.Pointer(&key)) },
			func(text string) (K, error) { return *(*K)(unsafe.Pointer(&text)), nil },
		}, nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return keys[K]{
			func(key K) string { return strconv.FormatInt(reflect.ValueOf(key).Int(), 10) },
			func(text string) (K, error) {
				n, err := strconv.ParseInt(text, 10, t.Bits())
				return canonical(text, strconv.FormatInt(n, 10), reflect.ValueOf(n).Convert(t).Interface().(K), err)
			},
		}, nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return keys[K]{
			func(key K) string { return strconv.FormatUint(reflect.ValueOf(key).Uint(), 10) },
			func(text string) (K, error) {
				n, err := strconv.ParseUint(text, 10, t.Bits())
				return canonical(text, strconv.FormatUint(n, 10), reflect.ValueOf(n).Convert(t).Interface().(K), err)
			},
		}, nil
	default:
		return keys[K]{}, fmt.Errorf("keys of type %v: say with WithKey how they are written", t)
	}
}

// canonical refuses texts that encode would not have written, such as "007".
func canonical[K any](text, written string, key K, err error) (K, error) {
	if err == nil && text != written {
		err = errors.New("not written by this store")
	}
	return key, err
}
