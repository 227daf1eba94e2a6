// Console shows a service from the inside: the page for people, the same as JSON, and the health that an orchestrator asks for, while the
// bank that the service needs is down, and while its own database is.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay/breaker"
	"github.com/backstay-go/backstay/console"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "the `address` of the service")
	serve := flag.Bool("serve", false, "stay until interrupted, to be looked at in a browser")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Stdout, *listen, *serve)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run tells the story, and returns an error if it did not happen as told.
func run(ctx context.Context, out io.Writer, listen string, serve bool) (err error) {
	bank := breaker.New(breaker.Config{Name: "bank", ConsecutiveFailures: 3, OpenDelay: time.Minute})
	var databaseDown atomic.Bool

	page := console.New(console.Config{Name: "orders"})
	defer page.Close()
	page.Add(bank) // or anything else of this library
	mux := http.NewServeMux()
	mux.Handle("/backstay/", page)
	mux.Handle("/livez", page.Liveness())
	mux.Handle("/readyz", page.Readiness(console.Check{Name: "database", Probe: func(context.Context) error {
		if databaseDown.Load() { // elsewhere: db.PingContext
			return errors.New("no connection")
		}
		return nil
	}}))
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", listen)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	defer func() {
		err = errors.Join(err, server.Close())
		if e := <-served; !errors.Is(e, http.ErrServerClosed) {
			err = errors.Join(err, e)
		}
	}()

	v := &visitor{out: out, client: &http.Client{Transport: &http.Transport{}}, url: "http://" + listener.Addr().String()}
	defer v.client.CloseIdleConnections()
	fmt.Fprintln(out, "all is well")
	v.look(ctx, "ready 200 ready, live 200, bank ok")
	for range 3 {
		_ = bank.Do(ctx, func(context.Context) error { return errors.New("connection refused") })
	}
	fmt.Fprintln(out, "the bank is down: the service is degraded, and of more use than none")
	v.look(ctx, "ready 200 degraded, live 200, bank degraded")
	databaseDown.Store(true)
	fmt.Fprintln(out, "its own database is away: send callers elsewhere, but do not restart it")
	v.look(ctx, "ready 503 failed, live 200, bank degraded")
	if serve {
		databaseDown.Store(false)
		fmt.Fprintf(out, "open %s/backstay/ in a browser; interrupt to end\n", v.url)
		<-ctx.Done()
	}
	return v.wrong
}

// A visitor asks what an orchestrator and a person would, and notes what is not as it should be.
type visitor struct {
	out    io.Writer
	client *http.Client
	url    string
	wrong  error
}

// look waits a little: however many ask, objects are looked at about once a second.
func (v *visitor) look(ctx context.Context, want string) {
	var got string
	for start := time.Now(); got != want && v.wrong == nil && time.Since(start) < 10*time.Second; <-time.After(50 * time.Millisecond) {
		var ready struct{ Status string }
		var now struct {
			Objects []struct{ Name, Status string }
		}
		readyCode := v.get(ctx, "/readyz", &ready)
		liveCode := v.get(ctx, "/livez", nil)
		v.get(ctx, "/backstay/api", &now)
		got = fmt.Sprintf("ready %d %s, live %d", readyCode, ready.Status, liveCode)
		for _, o := range now.Objects {
			got += fmt.Sprintf(", %s %s", o.Name, o.Status)
		}
	}
	fmt.Fprintln(v.out, "  "+got)
	if got != want {
		v.wrong = errors.Join(v.wrong, fmt.Errorf("%s, want %s", got, want))
	}
}

func (v *visitor) get(ctx context.Context, path string, into any) (code int) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, v.url+path, http.NoBody)
	var resp *http.Response
	if err == nil {
		resp, err = v.client.Do(r)
	}
	if err != nil {
		v.wrong = errors.Join(v.wrong, err)
		return 0
	}
	defer resp.Body.Close()
	if into != nil {
		err = json.NewDecoder(resp.Body).Decode(into)
	}
	v.wrong = errors.Join(v.wrong, err)
	return resp.StatusCode
}
