package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"
)

// envDB names the variable that stands for -db, which would show a password to everyone who lists processes.
const envDB = "BACKSTAY_DB"

// task is one run of a command on a database: its flags and its arguments.
type task struct {
	console
	flags   *flag.FlagSet
	db      string
	prefix  string
	timeout time.Duration
	json    bool
	yes     bool
	args    []string
}

// newTask declares the flags that all commands have.
func newTask(c console, name, owner string) *task {
	i := &task{console: c, flags: flag.NewFlagSet(name, flag.ContinueOnError)}
	i.flags.SetOutput(io.Discard)
	i.flags.StringVar(&i.db, "db", "", "`URL` of the database; also in the variable "+envDB)
	i.flags.StringVar(&i.prefix, "prefix", "backstay_", "`beginning` of the names of the "+owner+"'s tables")
	i.flags.DurationVar(&i.timeout, "timeout", time.Minute, "how `long` the database may take; a confirmation does not count")
	i.flags.BoolVar(&i.json, "json", false, "write JSON")
	return i
}

// begin reads the command line. helped tells that help was asked for, and given; a fault is a usageError.
func (i *task) begin(args []string, usage string, check func() error) (e engine, helped bool, err error) {
	name := i.flags.Name()
	err = i.parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(i.out, "usage: %s\n\n", strings.TrimSpace(name+" -db URL [flags] "+usage))
		i.flags.SetOutput(i.out)
		i.flags.PrintDefaults()
		return e, true, nil
	}
	if err == nil {
		e, err = i.check()
	}
	if err == nil {
		err = check()
	}
	if err != nil {
		return e, false, usageError{name + " -h", name + ": " + err.Error()}
	}
	return e, false, nil
}

// parse reads flags and arguments in any order.
func (i *task) parse(args []string) error {
	for {
		if err := i.flags.Parse(args); err != nil {
			return err
		}
		if i.flags.NArg() == 0 {
			return nil
		}
		i.args = append(i.args, i.flags.Arg(0))
		args = i.flags.Args()[1:]
	}
}

// check looks at what all commands have in common.
func (i *task) check() (engine, error) {
	if i.db == "" {
		i.db = i.getenv(envDB) // not the flag's default, which help would print
	}
	if i.db == "" {
		return engine{}, fmt.Errorf("the database is missing: give -db URL, or set %s", envDB)
	}
	e, err := find(i.db)
	if err == nil && i.timeout <= 0 {
		err = errors.New("-timeout must be positive")
	}
	return e, err
}

// wrong is the error of a command that is used otherwise than its help says.
func (i *task) wrong(text string) error { return usageError{i.flags.Name() + " -h", text} }

// work bounds what is asked of the database.
func (i *task) work(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, i.timeout)
}

// confirm asks a person. It writes to err, so that what the command writes to out stays clean.
func (i *task) confirm(ctx context.Context, preview func(io.Writer) error, question string) error {
	if i.yes {
		return nil
	}
	if !i.asks {
		return fmt.Errorf("%w: this cannot be undone, and there is no terminal to ask at: add -yes", errNotConfirmed)
	}
	if err := preview(i.err); err != nil {
		return err
	}
	fmt.Fprintf(i.err, "%s Type yes: ", question)
	answer := make(chan string, 1)
	go func() {
		text, _ := i.in.ReadString('\n') // the end of the input is no yes
		answer <- strings.TrimSpace(text)
	}()
	select {
	case text := <-answer:
		if text == "yes" {
			return nil
		}
	case <-ctx.Done(): // interrupted
	}
	fmt.Fprintln(i.err)
	return errNotConfirmed
}
