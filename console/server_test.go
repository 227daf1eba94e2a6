package console_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/console"
)

func serve(t *testing.T, h http.Handler) *httptest.Server {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv
}

// awaitGoroutines waits until there are no more than n, as long as they become fewer.
func awaitGoroutines(t *testing.T, n int) {
	t.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	fewest, moved := runtime.NumGoroutine(), time.Now()
	for {
		now := runtime.NumGoroutine()
		if now <= n {
			return
		}
		if now < fewest {
			fewest, moved = now, time.Now()
		}
		require.Less(t, time.Since(moved), time.Minute, "%d goroutines, %d before", now, n)
		<-ticker.C
	}
}

func TestAThousandViewersComeAndGoAndLeaveNothing(t *testing.T) {
	o := breakerThing("bank", 0)
	c := console.New(console.Config{MaxViewers: 1000})
	c.Add(o)
	srv := serve(t, c)
	before := runtime.NumGoroutine()
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			transport := &http.Transport{}
			defer transport.CloseIdleConnections()
			for range 50 {
				resp, err := (&http.Client{Transport: transport}).Get(srv.URL + "/api/stream")
				if err != nil {
					t.Error(err)
					return
				}
				for scan := bufio.NewScanner(resp.Body); scan.Scan() && !strings.HasPrefix(scan.Text(), "data: "); {
				}
				_ = resp.Body.Close()
			}
		})
	}
	all.Wait()
	awaitGoroutines(t, before)
	looks := o.looked()
	require.Equal(t, 200, get(c, "/").Code)
	require.Equal(t, looks, o.looked(), "nobody looks")
}

// A browser that is there and does not read costs its messages, for as long as the network takes them, and then its connection.
func TestADeadBrowserSlowsNobody(t *testing.T) {
	big := &thing{kind: "x", name: "big"}
	for i := range 150 {
		big.set(fmt.Sprintf("%s%d", strings.Repeat("metric", 20), i), 0)
	}
	c := console.New(console.Config{Interval: 100 * time.Millisecond})
	c.Add(big)
	srv := serve(t, c)
	for range 5 {
		conn, err := net.Dial("tcp", srv.Listener.Addr().String())
		require.NoError(t, err)
		defer func() { _ = conn.Close() }()
		require.NoError(t, conn.(*net.TCPConn).SetReadBuffer(4096))
		_, err = fmt.Fprintf(conn, "GET /api/stream HTTP/1.1\r\nHost: x\r\n\r\n")
		require.NoError(t, err)
	}
	resp, err := srv.Client().Get(srv.URL + "/api/stream")
	require.NoError(t, err)
	defer func() { _ = resp.Body.Close() }()
	lines := bufio.NewReader(resp.Body)
	for i, last := 0, uint64(0); i < 40; {
		line, err := lines.ReadString('\n')
		require.NoError(t, err, "the brisk viewer is served on")
		text, ok := strings.CutPrefix(line, "data: ")
		if !ok {
			continue
		}
		s := decode[state](t, text)
		require.Greater(t, s.Seq, last)
		last = s.Seq
		i++
		for j := range 150 {
			big.set(fmt.Sprintf("%s%d", strings.Repeat("metric", 20), j), float64(i))
		}
	}
	srv.CloseClientConnections()
}

// The stream has deadlines of its own: a server's WriteTimeout does not end it.
func TestAWriteTimeoutOfTheServerDoesNotEndTheStream(t *testing.T) {
	c := console.New(console.Config{Interval: 100 * time.Millisecond})
	srv := httptest.NewUnstartedServer(c)
	srv.Config.WriteTimeout = 300 * time.Millisecond
	srv.Config.RegisterOnShutdown(c.Close)
	srv.Start()
	defer srv.Close()
	resp, err := srv.Client().Get(srv.URL + "/api/stream")
	require.NoError(t, err)
	lines := bufio.NewReader(resp.Body)
	for n := 0; n < 10; {
		line, err := lines.ReadString('\n')
		require.NoError(t, err)
		if strings.HasPrefix(line, "data: ") {
			n++
		}
	}
	// Shutdown ends the stream, which it would wait for without Close.
	require.NoError(t, srv.Config.Shutdown(t.Context()))
	require.NoError(t, resp.Body.Close())
}
