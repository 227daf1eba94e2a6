package console

import (
	"context"
	"math"
	"slices"
	"time"
)

// finding is what one look at one object brought: a part of Console.names and Console.values.
type finding struct {
	entry    *entry
	from, to int
	fault    string // why there are no numbers
	unwell   string // what the object's own Health says
}

// sampleUntil looks at the objects at each interval, while there are viewers.
func (c *Console) sampleUntil(ctx context.Context) {
	ticker := time.NewTicker(c.cfg.Interval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			c.look(ctx, c.cfg.Interval/2)
		case <-ctx.Done():
			return
		}
	}
}

// look samples all objects, unless the latest look is younger than age, and tells the viewers. The objects' own methods run outside
// of locks, so that one of them that blocks holds up the page and nothing else.
func (c *Console) look(ctx context.Context, age time.Duration) {
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return
	}
	defer func() { <-c.turn }()
	c.mu.Lock()
	last, entries := c.axis.last(), c.entries
	c.mu.Unlock()
	if !last.IsZero() && time.Since(last) < age {
		return
	}
	c.collect(entries)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.apply(time.Now())
}

// patience is how long a request waits for objects that take their time.
const patience = 2 * time.Second

// glance is look for a request, which is answered with what is known where an object blocks. Of those who wait at most one is left
// behind: the one whose turn it is.
func (c *Console) glance(ctx context.Context, age time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.look(ctx, age)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

func (c *Console) collect(entries []*entry) {
	c.found, c.names, c.values = c.found[:0], c.names[:0], c.values[:0]
	for _, e := range entries {
		f := finding{entry: e, from: len(c.names)}
		f.fault = guarded(func() {
			for name, value := range e.object.Metrics() {
				c.names, c.values = append(c.names, name), append(c.values, value)
				if len(c.names)-f.from == maxMetrics {
					break
				}
			}
		})
		f.to = len(c.names)
		f.unwell = unwell(e.object)
		c.found = append(c.found, f)
	}
}

// apply takes over what was found and sends the difference to the viewers. It is called with c.mu held.
func (c *Console) apply(now time.Time) {
	var gap time.Duration
	if last := c.axis.last(); !last.IsZero() {
		gap = now.Sub(last)
	}
	number := c.axis.looks
	c.axis.push(now)
	c.seq++
	d := &delta{watched: len(c.viewers) > 0}
	for _, f := range c.found {
		if f.entry.first == 0 && !f.entry.known {
			f.entry.first = number
		}
		c.update(f, number, gap, now, d)
	}
	clear(c.names) // they may be parts of something large
	if !d.watched {
		c.gone = nil
		return
	}
	message := frame("delta", c.finish(d, now))
	c.gone = nil
	for v := range c.viewers {
		select {
		case v.messages <- message:
		default: // it does not keep up; when it comes again it gets a snapshot
			c.dismiss(v)
		}
	}
}

// update takes over what was found of one object.
func (c *Console) update(f finding, number int64, gap time.Duration, now time.Time, d *delta) {
	e := f.entry
	names, values := c.names[f.from:f.to], c.values[f.from:f.to]
	if f.fault != e.fault {
		e.fault, e.reported = f.fault, false
	}
	e.unwell = f.unwell
	if f.fault != "" {
		for i := range e.series {
			e.series[i].push(math.NaN(), number, e.first, c.axis.size())
		}
		c.rule(e, verdict{Degraded, "metrics: " + f.fault}, now, d)
		e.known = true
		d.object(e, &c.axis)
		return
	}
	if derived := e.rules.derive; derived != nil {
		names, values = e.share.derive(derived, names, values)
	}
	if !slices.Equal(names, e.names) {
		e.setNames(slices.Clone(names))
	}
	d.begin()
	for i, v := range values {
		was := e.values[i]
		e.values[i] = v
		e.series[i].push(e.charted(i, was, gap), number, e.first, c.axis.size())
		if v != was && (v == v || was == was) {
			d.pair(e, "metrics", i, v)
		}
		if e.watches != nil && e.watches[i].on {
			e.watches[i].grow(v, was)
		}
	}
	for i := range e.rates {
		if e.counter[i] {
			if r := e.series[i].mean(rateOver, number, c.axis.size()); r != e.rates[i] {
				e.rates[i] = r
				d.pair(e, "rates", i, r)
			}
		}
	}
	c.rule(e, e.rules.judge(e), now, d)
	for i := range e.watches {
		if text := e.watches[i].due(now); text != "" {
			c.events.add(e.event(now, text))
		}
	}
	e.known = true
	d.object(e, &c.axis)
}

// rule takes over how the object is, and notes a change in the log.
func (c *Console) rule(e *entry, v verdict, now time.Time, d *delta) {
	if v == e.verdict {
		return
	}
	if e.known || v.level != OK {
		text := v.why
		if v.level == OK {
			text = "well again, after: " + e.verdict.why
		}
		if v.level != e.verdict.level || e.rules.tellAll {
			ev := e.event(now, text)
			ev.Level = v.level
			c.events.add(ev)
		}
	}
	if v.why == isOpen {
		e.told(openings)
	}
	e.verdict = v
	d.verdict(e)
}

// told takes one from the growth of a watched counter, which the log has in other words.
func (e *entry) told(counter string) {
	for i := range e.watches {
		if e.names[i] == counter {
			e.watches[i].pending = max(0, e.watches[i].pending-1)
		}
	}
}

// charted is what the timeline shows of a metric: the rate of a counter, else the value itself.
func (e *entry) charted(i int, was float64, gap time.Duration) float64 {
	if !e.counter[i] {
		return e.values[i]
	}
	if gap <= 0 || was != was {
		return 0
	}
	return max(0, e.values[i]-was) / gap.Seconds()
}

func (e *entry) event(now time.Time, text string) Event {
	return Event{Time: now, Level: Degraded, Kind: e.kind, Name: e.name, Text: text}
}
