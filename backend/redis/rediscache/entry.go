package rediscache

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/backstay-go/backstay/cache"
)

// The layout of a value in Redis: format, version, flags, TTL, Keep, Cost, and then what the codec wrote. The scripts know
// where the version is.
const (
	format     = 1
	flagAbsent = 1
	headerSize = 1 + 8 + 1 + 3*8
)

// eternity is how long Redis holds an entry that has no TTL. With an expiry every entry can be evicted under Redis's
// volatile policies, and has an age.
const eternity = 10 * 365 * 24 * time.Hour

var errFormat = errors.New("not an entry")

// lifetime is how long Redis holds e, in whole milliseconds, as Redis counts.
func lifetime(ttl, keep time.Duration) time.Duration {
	if ttl <= 0 || ttl >= eternity || max(keep, 0) >= eternity-ttl {
		return eternity
	}
	return (ttl + max(keep, 0) + time.Millisecond - 1).Truncate(time.Millisecond)
}

func (c codec[V]) append(dst []byte, version uint64, e cache.Entry[V]) ([]byte, error) {
	var flags byte
	if e.Absent {
		flags = flagAbsent
	}
	dst = append(dst, format)
	dst = binary.BigEndian.AppendUint64(dst, version)
	dst = append(dst, flags)
	for _, d := range [...]time.Duration{e.TTL, e.Keep, e.Cost} {
		dst = binary.BigEndian.AppendUint64(dst, uint64(d))
	}
	if e.Absent {
		return dst, nil
	}
	return c.encode(dst, e.Value)
}

// parse is the inverse of append; left is how long Redis will still hold the entry.
func (c codec[V]) parse(data []byte, left time.Duration) (cache.Entry[V], error) {
	if len(data) < headerSize || data[0] != format || data[9]&^flagAbsent != 0 {
		return cache.Entry[V]{}, errFormat
	}
	e := cache.Entry[V]{
		Version: binary.BigEndian.Uint64(data[1:]),
		Absent:  data[9]&flagAbsent != 0,
		TTL:     time.Duration(binary.BigEndian.Uint64(data[10:])),
		Keep:    time.Duration(binary.BigEndian.Uint64(data[18:])),
		Cost:    time.Duration(binary.BigEndian.Uint64(data[26:])),
	}
	e.Age = max(lifetime(e.TTL, e.Keep)-max(left, 0), 0)
	if e.Version == 0 || e.Absent && len(data) > headerSize {
		return cache.Entry[V]{}, errFormat
	}
	if e.Absent {
		return e, nil
	}
	var err error
	e.Value, err = c.decode(data[headerSize:len(data):len(data)])
	return e, err
}

// versionIn is the version as it stands in data, also where data is no entry.
func versionIn(data []byte) string {
	return string(data[min(1, len(data)):min(9, len(data))])
}

func versionText(version uint64) string {
	if version == 0 {
		return ""
	}
	return string(binary.BigEndian.AppendUint64(nil, version))
}
