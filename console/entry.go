package console

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"unicode"
	"unicode/utf8"
)

// What a hostile or careless object can make the console keep.
const (
	maxName    = 200 // characters
	maxText    = 500
	maxMetrics = 200
	maxConfig  = 64 << 10 // bytes
)

// entry is an object and what is known of it. Its fields are guarded by Console.mu, except the first ones, which never change.
type entry struct {
	object Object
	id     int
	kind   string
	name   string
	rules  rules
	head   []byte // its JSON up to the metrics

	first    int64 // number of the look that saw it first
	names    []string
	keys     [][]byte // names as JSON
	values   []float64
	rates    []float64 // of counters, per second, over the latest looks
	series   []series
	counter  []bool
	watches  []watch // for each metric; nil: none is watched
	fault    string  // why there are no numbers
	unwell   string  // what the object's own Health says
	verdict  verdict
	known    bool // a look has been had
	share    share
	reported bool // viewers know of it as it is
}

func newEntry(o Object) *entry {
	e := &entry{object: o}
	fault := guarded(func() { e.kind, e.name, _ = o.Describe() })
	if fault != "" {
		e.kind, e.name = "unknown", fmt.Sprintf("%T", o)
	}
	e.rules = rulesOf(e.kind)
	e.kind, e.name = clean(e.kind, maxName), clean(e.name, maxName)
	return e
}

func (e *entry) sampled() bool { return e.known }

// guarded runs what belongs to somebody else, and returns "" unless that panics.
func guarded(fn func()) (fault string) {
	returned := false
	defer func() {
		if returned {
			return
		}
		fault = "panics"
		if v := recover(); v != nil {
			fault = clean(fmt.Sprintf("panics: %v", v), maxText)
		}
	}()
	fn()
	returned = true
	return ""
}

// clean makes text safe to show: no control or format characters, which could hide or turn round what stands beside them, valid UTF-8,
// and no longer than limit characters.
func clean(s string, limit int) string {
	short := len(s) <= limit
	plain := true
	for i := 0; plain && i < len(s); i++ {
		plain = s[i] >= ' ' && s[i] < 0x7f
	}
	if short && plain {
		return s
	}
	var b strings.Builder
	n := 0
	for _, r := range s {
		if n++; n > limit {
			b.WriteRune('…')
			break
		}
		if invisible(r) {
			r = utf8.RuneError
		}
		b.WriteRune(r)
	}
	return b.String()
}

func invisible(r rune) bool {
	return unicode.Is(unicode.C, r) || unicode.Is(unicode.Zl, r) || unicode.Is(unicode.Zp, r)
}

// quoted is s as JSON.
func quoted(s string) []byte {
	b, err := json.Marshal(s)
	if err != nil { // strings never fail
		return []byte(`""`)
	}
	return b
}

// setNames takes over new names of metrics, keeping what is known of those that stay.
func (e *entry) setNames(names []string) {
	old := make(map[string]int, len(e.names))
	for i, name := range e.names {
		old[name] = i
	}
	n := len(names)
	before := *e
	e.names, e.keys, e.values = make([]string, n), make([][]byte, n), make([]float64, n)
	e.rates = make([]float64, n)
	e.series, e.counter, e.watches = make([]series, n), make([]bool, n), nil
	for i, name := range names {
		e.names[i] = name
		e.keys[i] = quoted(clean(name, maxName))
		e.counter[i] = isCounter(name)
		e.values[i] = math.NaN()
		if j, ok := old[name]; ok {
			e.values[i], e.rates[i], e.series[i] = before.values[j], before.rates[j], before.series[j]
		}
		if w, ok := e.rules.watch[name]; ok {
			if e.watches == nil {
				e.watches = make([]watch, n)
			}
			e.watches[i] = watch{text: w, on: true}
			if j, ok := old[name]; ok && before.watches != nil {
				e.watches[i] = before.watches[j]
			}
		}
	}
	e.reported = false
}

// isCounter tells by the name, whose labels stand behind it in braces.
func isCounter(name string) bool {
	base, _, _ := strings.Cut(name, "{")
	return strings.HasSuffix(base, "_total")
}

// metric is the value of now by name.
func (e *entry) metric(name string) (float64, bool) {
	for i, n := range e.names {
		if n == name {
			return e.values[i], true
		}
	}
	return 0, false
}
