package console

import (
	"math"
	"strconv"
	"time"
)

// delta is the difference that a look makes, as JSON in the making. Without viewers nothing is written.
type delta struct {
	watched bool
	set     []byte // "id":{"metrics":{…},"rates":{…},"status":…},…
	add     []byte // whole objects
	open    bool   // the object of now has been begun in set
	section string // which part of it is being written
}

func (d *delta) begin() { d.open, d.section = false, "" }

// enter goes to a section of the object; it reports false where viewers are not to hear of it, or will be told the whole.
func (d *delta) enter(e *entry, section string) bool {
	if !d.watched || !e.reported {
		return false
	}
	if !d.open {
		d.open = true
		if len(d.set) > 0 {
			d.set = append(d.set, ',')
		}
		d.set = append(strconv.AppendInt(append(d.set, '"'), int64(e.id), 10), `":{`...)
		d.begun(section)
		return true
	}
	if d.section == section {
		d.set = append(d.set, ',')
		return true
	}
	d.set = append(d.set, "},"...)
	d.begun(section)
	return true
}

func (d *delta) begun(section string) {
	d.section = section
	if section != "" {
		d.set = append(append(append(d.set, '"'), section...), `":{`...)
	}
}

// pair writes a number of a metric.
func (d *delta) pair(e *entry, section string, i int, v float64) {
	if d.enter(e, section) {
		d.set = number(append(append(d.set, e.keys[i]...), ':'), v)
	}
}

// verdict writes how the object is, after its numbers.
func (d *delta) verdict(e *entry) {
	if d.enter(e, "") {
		d.set = e.appendVerdict(d.set)
	}
}

// object ends what was begun, or writes the whole object where viewers do not know it as it is.
func (d *delta) object(e *entry, a *axis) {
	if d.open {
		if d.section != "" {
			d.set = append(d.set, '}')
		}
		d.set = append(d.set, '}')
		d.begin()
	}
	if e.reported {
		return
	}
	e.reported = true
	if !d.watched {
		return
	}
	if len(d.add) > 0 {
		d.add = append(d.add, ',')
	}
	d.add = e.append(d.add, a)
}

// finish is the message. It is called with c.mu held.
func (c *Console) finish(d *delta, now time.Time) []byte {
	b := make([]byte, 0, len(d.set)+len(d.add)+256)
	b = c.stamp(b, now)
	if len(d.set) > 0 {
		b = append(append(append(b, `,"set":{`...), d.set...), '}')
	}
	if len(d.add) > 0 {
		b = append(append(append(b, `,"add":[`...), d.add...), ']')
	}
	if len(c.gone) > 0 {
		b = append(b, `,"gone":[`...)
		for i, id := range c.gone {
			if i > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendInt(b, int64(id), 10)
		}
		b = append(b, ']')
	}
	if c.events.told < c.events.count {
		b = c.events.since(append(b, `,"events":`...), c.events.told)
		c.events.told = c.events.count
	}
	return append(b, '}')
}

func (c *Console) stamp(b []byte, now time.Time) []byte {
	b = strconv.AppendUint(append(b, `{"seq":`...), c.seq, 10)
	return strconv.AppendInt(append(b, `,"t":`...), now.UnixMilli(), 10)
}

// snapshot is everything that viewers see, as JSON. It is called with c.mu held.
func (c *Console) snapshot() []byte {
	b := c.stamp(make([]byte, 0, 4096+256*len(c.entries)), c.axis.last())
	b = append(append(b, `,"title":`...), quoted(clean(c.cfg.Name, maxName))...)
	b = strconv.AppendInt(append(b, `,"interval_ms":`...), c.cfg.Interval.Milliseconds(), 10)
	b = strconv.AppendInt(append(b, `,"history":`...), int64(c.cfg.History), 10)
	b = strconv.AppendBool(append(b, `,"read_only":`...), c.authorize == nil)
	b = c.appendTimes(append(b, `,"times":`...))
	b = append(b, `,"objects":[`...)
	some := false
	for _, e := range c.entries {
		if !e.known {
			continue // the next look tells
		}
		if some {
			b = append(b, ',')
		}
		some = true
		b = e.append(b, &c.axis)
	}
	b = c.events.since(append(b, `],"events":`...), 0)
	return append(b, '}')
}

func (c *Console) appendTimes(b []byte) []byte {
	from, to := c.axis.kept()
	b = append(b, '[')
	for look := from; look < to; look++ {
		if look > from {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, c.axis.times[look%int64(c.axis.size())].UnixMilli(), 10)
	}
	return append(b, ']')
}

// append writes the object with the timeline that its row shows.
func (e *entry) append(b []byte, a *axis) []byte {
	b = e.appendHead(b)
	b = append(b, `,"metrics":{`...)
	for i := range e.names {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(b, e.keys[i]...), ':')
		b = number(b, e.values[i])
	}
	b = append(b, `},"rates":{`...)
	some := false
	for i, r := range e.rates {
		if r == 0 {
			continue
		}
		if some {
			b = append(b, ',')
		}
		some = true
		b = number(append(append(b, e.keys[i]...), ':'), r)
	}
	b = append(b, '}')
	if i := e.chart(); i >= 0 {
		b = append(append(b, `,"chart":`...), e.keys[i]...)
		b = e.series[i].append(append(b, `,"line":`...), e.first, a)
	}
	return append(b, '}')
}

// appendHead writes what the object is, and how.
func (e *entry) appendHead(b []byte) []byte {
	if e.head == nil {
		e.head = strconv.AppendInt(append(e.head, `{"id":`...), int64(e.id), 10)
		e.head = append(append(e.head, `,"panel":`...), quoted(e.rules.panel)...)
		e.head = append(append(e.head, `,"kind":`...), quoted(e.kind)...)
		e.head = append(append(e.head, `,"name":`...), quoted(e.name)...)
		e.head = append(e.head, ',')
	}
	return e.appendVerdict(append(b, e.head...))
}

func (e *entry) appendVerdict(b []byte) []byte {
	b = append(append(append(b, `"status":"`...), e.verdict.level.String()...), '"')
	return append(append(b, `,"why":`...), quoted(e.verdict.why)...)
}

// chart is the index of the metric that the row's timeline shows, -1: there are no metrics.
func (e *entry) chart() int {
	for i, name := range e.names {
		if name == e.rules.chart {
			return i
		}
	}
	return min(0, len(e.names)-1)
}

// append writes the timeline over the times of the axis.
func (s *series) append(b []byte, first int64, a *axis) []byte {
	from, to := a.kept()
	b = append(b, '[')
	for look := from; look < to; look++ {
		if look > from {
			b = append(b, ',')
		}
		b = number32(b, s.at(look, first, a.size()))
	}
	return append(b, ']')
}

// number writes null for what JSON has no number for.
func number(b []byte, v float64) []byte {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return append(b, "null"...)
	}
	if v == math.Trunc(v) && math.Abs(v) < 1e15 {
		return strconv.AppendInt(b, int64(v), 10)
	}
	return strconv.AppendFloat(b, v, 'g', -1, 64)
}

func number32(b []byte, v float32) []byte {
	if v != v || math.IsInf(float64(v), 0) {
		return append(b, "null"...)
	}
	return strconv.AppendFloat(b, float64(v), 'g', 5, 32)
}
