package console

import (
	"encoding/json"
	"strconv"
	"time"
)

// Level says how much something matters. Its zero value is OK.
type Level int

// The levels of events and objects.
const (
	OK       Level = iota // as it should be
	Degraded              // somebody may want to know; the service goes on
	Failed                // somebody should do something
)

// String returns "ok", "degraded" or "failed".
func (l Level) String() string {
	switch l {
	case OK:
		return "ok"
	case Degraded:
		return "degraded"
	default:
		return "failed"
	}
}

// MarshalText writes the word of String.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// Event is a line of the event log.
type Event struct {
	// Time is when it happened. Default now.
	Time time.Time
	// Level is how much it matters.
	Level Level
	// Kind and Name say of what, in the words of Describe. They may be empty.
	Kind, Name string
	// Text says what happened, in a few words; longer than 500 characters it is cut.
	Text string
}

// Record adds a line to the event log, for viewers of now and later: give it what hooks tell, such as a breaker's change of state, so
// that what happens between two looks, or while nobody looks, is in the log too. It takes well under a microsecond with short ASCII
// texts and never waits for a viewer.
func (c *Console) Record(e Event) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	e.Kind, e.Name, e.Text = clean(e.Kind, maxName), clean(e.Name, maxName), clean(e.Text, maxText)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events.add(e)
}

// events is a ring of the latest ones.
type events struct {
	limit int
	ring  []Event
	count int // so many there were
	told  int // so many the viewers know of
}

func (l *events) add(e Event) {
	if l.limit <= 0 {
		return
	}
	if len(l.ring) < l.limit {
		l.ring = append(l.ring, e)
	} else {
		l.ring[l.count%l.limit] = e
	}
	l.count++
}

// since appends, as a JSON array, the events from the nth on that are still there.
func (l *events) since(b []byte, n int) []byte {
	b = append(b, '[')
	n = max(n, l.count-len(l.ring))
	for i := n; i < l.count; i++ {
		if i > n {
			b = append(b, ',')
		}
		b = l.ring[i%max(1, l.limit)].append(b, i+1)
	}
	return append(b, ']')
}

func (e *Event) append(b []byte, seq int) []byte {
	line, err := json.Marshal(struct {
		Seq   int    `json:"seq"`
		Time  int64  `json:"t"`
		Level Level  `json:"level"`
		Kind  string `json:"kind"`
		Name  string `json:"name"`
		Text  string `json:"text"`
	}{seq, e.Time.UnixMilli(), e.Level, e.Kind, e.Name, e.Text})
	if err != nil { // strings and numbers never fail
		return append(b, "{}"...)
	}
	return append(b, line...)
}

// quietFor is how long after an event the same counter makes no other one; what grew meanwhile is told together.
const quietFor = 5 * time.Second

// watch makes events of the growth of a counter.
type watch struct {
	on      bool
	text    string
	pending float64
	told    time.Time
}

// grow notes the growth of the counter; the first look, before which it was NaN, shows none.
func (w *watch) grow(value, was float64) {
	if value > was {
		w.pending += value - was
	}
}

// due returns the text of an event that is due, or "".
func (w *watch) due(now time.Time) string {
	if w.pending <= 0 || !w.told.IsZero() && now.Sub(w.told) < quietFor {
		return ""
	}
	n := w.pending
	w.pending, w.told = 0, now
	if n == 1 {
		return w.text
	}
	return w.text + ", " + strconv.FormatFloat(n, 'f', -1, 64) + " times"
}
