package console_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"iter"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/backstay-go/backstay/console"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// thing is an object of a test's own making.
type thing struct {
	kind, name string
	config     any

	mu      sync.Mutex
	metrics map[string]float64
	health  error
	looks   int
	before  func() // called by Metrics
}

func (o *thing) Describe() (kind, name string, config any) { return o.kind, o.name, o.config }

func (o *thing) Health() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.health
}

func (o *thing) Metrics() iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) {
		if o.before != nil {
			o.before()
		}
		o.mu.Lock()
		o.looks++
		now := maps.Clone(o.metrics)
		o.mu.Unlock()
		for _, name := range slices.Sorted(maps.Keys(now)) {
			if !yield(name, now[name]) {
				return
			}
		}
	}
}

func (o *thing) set(metric string, value float64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.metrics == nil {
		o.metrics = map[string]float64{}
	}
	o.metrics[metric] = value
}

func (o *thing) looked() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.looks
}

func breakerThing(name string, state float64) *thing {
	return &thing{kind: "breaker", name: name, metrics: map[string]float64{"state": state, "rejected_total": 0}}
}

// object is what the page knows of one.
type object struct {
	ID      int
	Panel   string
	Kind    string
	Name    string
	Status  string
	Why     string
	Metrics map[string]any
	Rates   map[string]float64
	Chart   string
	Line    []*float64
	Times   []int64
	Series  map[string][]*float64
	Config  json.RawMessage
	Actions []struct{ Name, Label, Input string }
}

type event struct {
	Seq              int
	T                int64
	Level            string
	Kind, Name, Text string
}

type state struct {
	Seq      uint64
	T        int64
	Title    string
	ReadOnly bool `json:"read_only"`
	Times    []int64
	Objects  []object
	Events   []event
	Set      map[string]object
	Add      []object
	Gone     []int
}

func get(h http.Handler, path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w
}

func decode[T any](t *testing.T, body string) (v T) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(body), &v), body)
	return v
}

func snapshot(t *testing.T, c *console.Console) state {
	t.Helper()
	w := get(c, "/api")
	require.Equal(t, http.StatusOK, w.Code)
	return decode[state](t, w.Body.String())
}

// viewer is a stream that a test reads, in memory: it works in a synctest bubble too.
type viewer struct {
	t     *testing.T
	leave context.CancelFunc
	pipe  *io.PipeWriter
	lines *bufio.Reader
	done  chan struct{}
	code  int
	head  http.Header
}

func (v *viewer) Header() http.Header              { return v.head }
func (v *viewer) WriteHeader(code int)             { v.code = code }
func (v *viewer) Write(b []byte) (int, error)      { return v.pipe.Write(b) }
func (v *viewer) Flush()                           {}
func (v *viewer) SetWriteDeadline(time.Time) error { return nil }

func view(t *testing.T, h http.Handler) *viewer {
	t.Helper()
	ctx, leave := context.WithCancel(t.Context())
	out, in := io.Pipe()
	v := &viewer{t: t, leave: leave, pipe: in, lines: bufio.NewReader(out), done: make(chan struct{}), code: 200, head: http.Header{}}
	go func() {
		defer close(v.done)
		h.ServeHTTP(v, httptest.NewRequest(http.MethodGet, "/api/stream", nil).WithContext(ctx))
		_ = in.Close()
	}()
	return v
}

// next is the next message and its kind.
func (v *viewer) next() (kind string, text string) {
	v.t.Helper()
	for {
		line, err := v.lines.ReadString('\n')
		require.NoError(v.t, err)
		if rest, ok := strings.CutPrefix(line, "event: "); ok {
			kind = strings.TrimSpace(rest)
		}
		if rest, ok := strings.CutPrefix(line, "data: "); ok {
			return kind, rest
		}
	}
}

func (v *viewer) read() state {
	v.t.Helper()
	_, text := v.next()
	return decode[state](v.t, text)
}

// close leaves, and waits until the handler has returned.
func (v *viewer) close() {
	v.leave()
	_, _ = io.Copy(io.Discard, v.lines)
	<-v.done
}
