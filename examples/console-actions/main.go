// Console-actions is a service that its operators can look at and, with -actions, mend: they force its breaker open, requeue a message that
// the broker refused, and retry a saga that is stuck.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"time"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "where to serve")
	stay := flag.Bool("serve", false, "go on serving until interrupted; without it an operator's part is played, and printed")
	actions := flag.Bool("actions", false, "let operators act, with the password in OPERATOR_PASSWORD; without it the console is read-only")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Stdout, settings{*listen, *stay, *actions, os.Getenv("OPERATOR_PASSWORD")})
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

type settings struct {
	listen   string
	stay     bool
	actions  bool
	password string
}

func (cfg settings) check() error {
	if cfg.actions && cfg.password == "" {
		return errors.New("-actions needs a password for operators: set OPERATOR_PASSWORD")
	}
	return nil
}

func run(ctx context.Context, out io.Writer, cfg settings) (err error) {
	if err := cfg.check(); err != nil {
		return err
	}
	s, err := open(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", cfg.listen)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: s.pages(), ReadHeaderTimeout: 10 * time.Second}
	server.RegisterOnShutdown(s.console.Close) // or Shutdown would wait for those who look
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	defer func() {
		err = errors.Join(err, server.Shutdown(context.WithoutCancel(ctx)))
		if failed := <-served; !errors.Is(failed, http.ErrServerClosed) {
			err = errors.Join(err, failed)
		}
	}()
	url := "http://" + listener.Addr().String() + consolePath
	if !cfg.stay {
		return play(ctx, out, s, url)
	}
	fmt.Fprintf(out, "serving %s until interrupted", url)
	if cfg.actions {
		fmt.Fprintf(out, "; sign in as %q", operator)
	}
	fmt.Fprintln(out)
	s.keepBusy(ctx)
	return nil
}
