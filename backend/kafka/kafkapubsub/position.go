package kafkapubsub

import (
	"encoding/base64"
	"encoding/binary"
	"strings"
)

// Kafka keeps one number per partition and group: everything below it is settled. What is settled beyond it, and how
// often what is not was delivered, travels in the metadata of the commit, so that an orderly change of members hands
// nothing out again. Metadata that are absent, foreign or broken mean that nothing is known, which costs repetitions.

// marker begins metadata of this form.
const marker = "backstay1:"

const (
	// maxMetadata is below the 4096 bytes that brokers allow by default.
	maxMetadata = 4000
	// maxCounts bounds the records whose deliveries are counted.
	maxCounts = 64
)

// past is what was known of a partition when its members changed.
type past struct {
	floor  int64
	high   int64 // behind the last record that was delivered
	counts map[int64]int
	bits   []byte // from floor on
}

func (p *past) settled(offset int64) bool {
	i := offset - p.floor
	return i >= 0 && i < int64(len(p.bits))*8 && p.bits[i/8]&(1<<(i%8)) != 0
}

// attempts is how often the record was delivered, as far as that is known.
func (p *past) attempts(offset int64) int {
	if offset >= p.high || offset < p.floor {
		return 0
	}
	return max(p.counts[offset], 1)
}

// decodePast reads what metadata writes.
func decodePast(floor int64, metadata string) past {
	unknown := past{floor: floor, high: floor}
	text, ours := strings.CutPrefix(metadata, marker)
	if !ours {
		return unknown
	}
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return unknown
	}
	r := varints{b: b}
	p := past{floor: floor, high: floor + r.next(), counts: make(map[int64]int)}
	for range min(r.next(), maxCounts) {
		offset := floor + r.next()
		p.counts[offset] = int(r.next())
	}
	if r.bad || p.high < floor {
		return unknown
	}
	p.bits = r.b
	return p
}

// varints reads small numbers.
type varints struct {
	b   []byte
	bad bool
}

func (v *varints) next() int64 {
	x, n := binary.Uvarint(v.b)
	if n <= 0 || x > 1<<40 {
		v.bad, v.b = true, nil
		return 0
	}
	v.b = v.b[n:]
	return int64(x)
}

// metadata writes what is settled beyond the floor.
func (l *lane) metadata() string {
	counts := 0
	var listed []byte
	var bits []byte
	for p := l.first; p < l.end; p++ {
		e := l.at(p)
		i := e.offset - l.floor
		switch {
		case e.rec == nil && i < 8*maxMetadata:
			for int64(len(bits)) <= i/8 {
				bits = append(bits, 0)
			}
			bits[i/8] |= 1 << (i % 8)
		case e.rec != nil && e.attempts > 1 && counts < maxCounts:
			counts++
			listed = binary.AppendUvarint(listed, uint64(i))
			listed = binary.AppendUvarint(listed, uint64(e.attempts))
		}
	}
	high := max(l.high-l.floor, 0)
	if high == 0 && len(bits) == 0 && counts == 0 {
		return ""
	}
	b := binary.AppendUvarint(nil, uint64(high))
	b = binary.AppendUvarint(b, uint64(counts))
	b = append(b, listed...)
	room := base64.RawURLEncoding.DecodedLen(maxMetadata-len(marker)) - len(b)
	b = append(b, bits[:min(len(bits), room)]...)
	return marker + base64.RawURLEncoding.EncodeToString(b)
}
