package console_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/console"
)

// crowd is 500 objects with the numbers of a breaker.
func crowd() (*console.Console, []*thing) {
	all := make([]*thing, 500)
	c := console.New(console.Config{})
	for i := range all {
		all[i] = &thing{kind: "breaker", name: fmt.Sprint("service ", i), metrics: map[string]float64{}}
		for _, name := range fixedNames {
			all[i].set(name, 0)
		}
		c.Add(fixed{all[i]})
	}
	return c, all
}

// fixed yields its numbers without sorting and copying, as the objects of the patterns do.
type fixed struct{ *thing }

func (f fixed) Metrics() iter.Seq2[string, float64] { return f.each }

var fixedNames = []string{"state", "successes_total", "failures_total", "slow_total", "ignored_total", "rejected_total", "opened_total", "window_calls", "window_failures", "window_slow", "overdue"}

func (f fixed) each(yield func(string, float64) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, name := range fixedNames {
		if !yield(name, f.metrics[name]) {
			return
		}
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func processorTime(t testing.TB) time.Duration {
	var u syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// discard is a viewer that takes everything in no time.
type discard struct{ h http.Header }

func (d discard) Header() http.Header              { return d.h }
func (d discard) WriteHeader(int)                  {}
func (d discard) Write(b []byte) (int, error)      { return len(b), nil }
func (d discard) Flush()                           {}
func (d discard) SetWriteDeadline(time.Time) error { return nil }

// watched is what a viewer costs while the service changes.
type watched struct {
	share     float64 // of a core, reading included
	memory    int64   // bytes, beside those of the objects
	first, on int     // bytes of the snapshot, and of a delta
}

// watch has one viewer look at 500 objects for six seconds, and changes them by change after each look.
func watch(t *testing.T, change func(all []*thing)) watched {
	t.Helper()
	c, all := crowd()
	objects := heap() // the objects' own
	srv := serve(t, c)
	resp, err := srv.Client().Get(srv.URL + "/api/stream")
	require.NoError(t, err)
	read := make(chan int, 1000)
	go func() {
		defer close(read)
		lines := bufio.NewReader(resp.Body)
		for {
			n, err := message(lines)
			if err != nil {
				return
			}
			if n > 0 {
				read <- n
			}
		}
	}()
	w := watched{first: <-read}
	start, used := time.Now(), processorTime(t)
	const looks = 12
	for range looks {
		change(all)
		w.on += <-read / looks
	}
	w.share = (processorTime(t) - used).Seconds() / time.Since(start).Seconds()
	w.memory = int64(heap()) - int64(objects)
	require.NoError(t, resp.Body.Close())
	for range read {
	}
	runtime.KeepAlive(all)
	t.Logf("%.2f %% of a core, reading included; %d kB beside the objects; the snapshot has %d kB, a delta %d bytes", w.share*100, w.memory>>10, w.first>>10, w.on)
	return w
}

// message reads a line and returns how long it is if it is data, without keeping it.
func message(lines *bufio.Reader) (n int, err error) {
	data := false
	for {
		part, more, err := lines.ReadLine()
		if err != nil {
			return 0, err
		}
		if n == 0 {
			data = len(part) > 6 && string(part[:6]) == "data: "
		}
		n += len(part)
		if !more {
			break
		}
	}
	if !data {
		n = 0
	}
	return n, nil
}

// 500 objects of which 10 change in a second, watched by one viewer.
func TestFiveHundredObjectsCostLittle(t *testing.T) {
	w := watch(t, func(all []*thing) {
		for range 5 {
			all[rand.IntN(len(all))].set("successes_total", float64(rand.IntN(1000)))
		}
	})
	require.Less(t, w.memory, int64(2<<20))
	// Under the race detector, and on a machine whose every instruction is dear, the share means little: see the log.
	require.Less(t, w.share, 0.03*slowness)
}

// 500 objects each of which changes ten times a second, which is all of them at each look, watched by one viewer.
func TestFiveHundredBusyObjectsCostLittle(t *testing.T) {
	n := 0.0
	w := watch(t, func(all []*thing) {
		n += 5
		for i, o := range all {
			o.set("successes_total", n*float64(1+i%7))
		}
	})
	require.Less(t, w.memory, int64(2<<20))
	require.Less(t, w.share, 0.03*slowness)
}

// A look at 500 objects of which five have changed, and its message. At two looks a second, 15 ms are 3 % of a core.
func BenchmarkLook(b *testing.B) {
	c, all := crowd()
	defer watching(c, 1)()
	b.ReportAllocs()
	for b.Loop() {
		for range 5 {
			all[rand.IntN(len(all))].set("successes_total", float64(rand.IntN(1000)))
		}
		console.Look(c)
	}
}

func BenchmarkSnapshot(b *testing.B) {
	c, _ := crowd()
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		c.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/api", nil))
		_, _ = io.Copy(io.Discard, w.Body)
	}
}

func BenchmarkRecord(b *testing.B) {
	c := console.New(console.Config{})
	e := console.Event{Time: time.Now(), Kind: "breaker", Name: "bank", Text: "open", Level: console.Degraded}
	b.ReportAllocs()
	for b.Loop() {
		c.Record(e)
	}
}

// watching adds viewers, so that looks make messages.
func watching(c *console.Console, n int) (leave func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, n)
	for range n {
		go func() {
			c.ServeHTTP(discard{http.Header{}}, httptest.NewRequest(http.MethodGet, "/api/stream", nil).WithContext(ctx))
			done <- struct{}{}
		}()
	}
	return func() {
		cancel()
		for range n {
			<-done
		}
	}
}
