// Backstay is the operator's command for what services built on backstay keep in their databases.
//
//	backstay outbox list -db mysql://orders@db.internal/orders
//	backstay saga list -db postgres://orders@db.internal/orders
//
// It looks at messages that an outbox has given up and at sagas that are stuck, and repairs them; "backstay help", "backstay outbox help"
// and "backstay saga help" tell the rest. It may be used beside running services.
//
// # Exit codes
//
//	0  done
//	1  the database failed or refused; the error says what is known
//	2  the command line was wrong; nothing was done
//	3  a message that was named is not parked, or a saga is not there or not stuck; what was said to be done for the others is done
//	4  it was not confirmed; nothing was done
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	c := console{
		in: bufio.NewReader(os.Stdin), out: os.Stdout, err: os.Stderr, getenv: os.Getenv,
		asks: isTerminal(os.Stdin), outIsTerminal: isTerminal(os.Stdout),
	}
	code := c.run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// isTerminal is also true of other character devices, such as /dev/null, from which no confirmation can come.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// console is where a command reads and writes.
type console struct {
	in       *bufio.Reader
	out, err io.Writer
	getenv   func(string) string
	// asks tells that a person sits at in, outIsTerminal that one sits at out.
	asks, outIsTerminal bool
}

const (
	codeDone = iota
	codeFailed
	codeUsage
	codeNotThere
	codeNotConfirmed
)

var (
	errNotParked    = errors.New("not parked")
	errNotStuck     = errors.New("not stuck")
	errNotConfirmed = errors.New("nothing was done, since it was not confirmed")
)

// usageError is a wrong command line, with the command whose help tells what is right.
type usageError struct{ command, text string }

func (e usageError) Error() string { return e.text }

// group is what "backstay NAME ..." does.
type group struct {
	name, about string
	run         func(c console, ctx context.Context, args []string) error
}

func groups() []group {
	return []group{
		{"outbox", "look at messages that were given up, and repair them", console.outbox},
		{"saga", "look at sagas, and repair those that are stuck", console.saga},
	}
}

// run carries out a command line and returns the exit code.
func (c console) run(ctx context.Context, args []string) int {
	err := c.dispatch(ctx, args)
	var usage usageError
	switch {
	case err == nil:
		return codeDone
	case errors.As(err, &usage):
		fmt.Fprintf(c.err, "backstay: %s\nFor help: %s\n", safe(usage.text, maxError), usage.command)
		return codeUsage
	}
	fmt.Fprintf(c.err, "backstay: %s\n", safeLines(err.Error(), maxError))
	switch {
	case errors.Is(err, errNotConfirmed):
		return codeNotConfirmed
	case errors.Is(err, errNotParked), errors.Is(err, errNotStuck):
		return codeNotThere
	default:
		return codeFailed
	}
}

func (c console) dispatch(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return usageError{"backstay help", "a command is missing"}
	}
	switch args[0] {
	case "help", "-h", "-help", "--help":
		c.help()
		return nil
	case "version", "-version", "--version":
		fmt.Fprintln(c.out, version())
		return nil
	}
	for _, g := range groups() {
		if g.name == args[0] {
			return g.run(c, ctx, args[1:])
		}
	}
	return usageError{"backstay help", fmt.Sprintf("there is no command %q", args[0])}
}

func (c console) help() {
	fmt.Fprint(c.out, "usage: backstay COMMAND ...\n\n")
	for _, g := range groups() {
		fmt.Fprintf(c.out, "  %-9s %s: backstay %s help\n", g.name, g.about, g.name)
	}
	fmt.Fprint(c.out, "  version   print the version\n  help      print this\n")
	fmt.Fprint(c.out, "\nexit codes: 0 done, 1 failed, 2 wrong command line, 3 not parked or not stuck, 4 not confirmed\n")
}

func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "backstay (devel)"
	}
	return "backstay " + info.Main.Version
}
