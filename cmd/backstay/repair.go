package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/pubsub"
)

// previewed is how many messages a question shows.
const previewed = 20

func (i *inspection) requeue() func(context.Context) error {
	all := i.flags.Bool("all", false, "requeue every parked message")
	return func(ctx context.Context) error {
		found, missing, err := i.chosen(ctx, *all)
		if err != nil {
			return err
		}
		return i.repair(ctx, "requeued", found, missing, i.store.Requeue)
	}
}

func (i *inspection) skip() func(context.Context) error {
	all := i.flags.Bool("all", false, "skip every parked message")
	i.flags.BoolVar(&i.yes, "yes", false, "do not ask")
	return func(ctx context.Context) error {
		found, missing, err := i.chosen(ctx, *all)
		if err != nil {
			return err
		}
		if len(found) > 0 {
			preview := func(w io.Writer) error {
				if err := writeTable(w, found[:min(len(found), previewed)]); err != nil {
					return err
				}
				if more := len(found) - previewed; more > 0 {
					fmt.Fprintf(w, "and %d more\n", more)
				}
				return nil
			}
			if err := i.confirm(ctx, preview, fmt.Sprintf("Delete %s for good?", count(len(found)))); err != nil {
				return err
			}
		}
		return i.repair(ctx, "skipped", found, missing, i.store.Skip)
	}
}

func count(n int) string {
	if n == 1 {
		return "1 message"
	}
	return fmt.Sprintf("%d messages", n)
}

// chosen are the messages that the arguments name.
func (i *inspection) chosen(ctx context.Context, all bool) (found []outbox.Parked, missing []int64, err error) {
	seqs, err := i.seqs()
	if err != nil || all == (len(seqs) > 0) {
		return nil, nil, usageError{i.flags.Name() + " -h", "give the SEQ of one or more messages, or -all"}
	}
	if all {
		found, err = i.all(ctx)
		return found, nil, err
	}
	return i.find(ctx, seqs)
}

// repair does what it is to the messages found, a page at a time, and reports.
func (i *inspection) repair(ctx context.Context, done string, found []outbox.Parked, missing []int64, do func(context.Context, ...int64) (int, error)) error {
	ctx, cancel := i.work(ctx)
	defer cancel()
	n := 0
	var failed error
	for chunk := range slices.Chunk(found, page) {
		seqs := make([]int64, len(chunk))
		for k, p := range chunk {
			seqs[k] = p.Record.Seq
		}
		part, err := do(ctx, seqs...)
		n += part
		if err != nil {
			failed = fmt.Errorf("%d of %d were %s before this; run it again for the others: %w", n, len(found), done, err)
			break
		}
	}
	if err := i.report(n, done); err != nil || failed != nil {
		return errors.Join(failed, err)
	}
	if n < len(found) {
		return errors.Join(fmt.Errorf("%w: %d of them, which somebody else repaired meanwhile", errNotParked, len(found)-n), missingError(missing))
	}
	return missingError(missing)
}

// report tells what was done to n messages.
func (i *inspection) report(n int, done ...string) error {
	if !i.json {
		fmt.Fprintf(i.out, "%s %s\n", count(n), strings.Join(done, " and "))
		return nil
	}
	counts := map[string]int{}
	for _, what := range done {
		counts[what] = n
	}
	return writeJSON(i.out, counts)
}

// changes are what "edit" is to do to a message.
type changes struct {
	topic, payload, file string
	set, unset           pairs
	requeue              bool
}

// pairs collects a flag that may be given several times.
type pairs []string

func (p *pairs) String() string { return strings.Join(*p, ",") }

// Set adds a value.
func (p *pairs) Set(text string) error {
	*p = append(*p, text)
	return nil
}

func (i *inspection) edit() func(context.Context) error {
	var c changes
	i.flags.StringVar(&c.topic, "topic", "", "new `topic`")
	i.flags.StringVar(&c.payload, "payload", "", "new payload, as `text`")
	i.flags.StringVar(&c.file, "payload-file", "", "new payload, from a `file`; - is the standard input, and then -yes is needed")
	i.flags.Var(&c.set, "header", "set a header, as `name=value`; may be repeated")
	i.flags.Var(&c.unset, "unset", "remove the header of this `name`; may be repeated")
	i.flags.BoolVar(&c.requeue, "requeue", false, "requeue the message afterwards")
	i.flags.BoolVar(&i.yes, "yes", false, "do not ask")
	return func(ctx context.Context) error {
		seqs, err := i.seqs()
		if err != nil || len(seqs) != 1 {
			return usageError{i.flags.Name() + " -h", "edit takes one SEQ"}
		}
		given := map[string]bool{}
		i.flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
		if !given["topic"] && !given["payload"] && !given["payload-file"] && !given["header"] && !given["unset"] {
			return usageError{i.flags.Name() + " -h", "nothing is to be changed: give -topic, -payload, -payload-file, -header or -unset"}
		}
		if given["payload"] && given["payload-file"] || c.file == "-" && !i.yes {
			return usageError{i.flags.Name() + " -h", "give one of -payload and -payload-file, and -yes with -payload-file -"}
		}
		found, missing, err := i.find(ctx, seqs)
		if err := errors.Join(err, missingError(missing)); err != nil {
			return err
		}
		m, err := i.changed(found[0].Record.Message, c, given)
		if err != nil {
			return err
		}
		return i.replace(ctx, found[0], m, c.requeue)
	}
}

// changed is m with the changes made.
func (i *inspection) changed(m pubsub.Message, c changes, given map[string]bool) (pubsub.Message, error) {
	if given["topic"] {
		m.Topic = c.topic
	}
	if given["payload"] {
		m.Payload = []byte(c.payload)
	}
	var err error
	if given["payload-file"] {
		if c.file == "-" {
			m.Payload, err = io.ReadAll(i.in)
		} else {
			m.Payload, err = os.ReadFile(c.file)
		}
		if err != nil {
			return m, fmt.Errorf("the new payload: %w", err)
		}
	}
	m.Header = maps.Clone(m.Header)
	if m.Header == nil {
		m.Header = pubsub.Header{}
	}
	for _, name := range c.unset {
		if _, ok := m.Header[name]; !ok {
			return m, usageError{i.flags.Name() + " -h", fmt.Sprintf("there is no header %q to remove", name)}
		}
		delete(m.Header, name)
	}
	for _, text := range c.set {
		name, value, ok := strings.Cut(text, "=")
		if !ok {
			return m, usageError{i.flags.Name() + " -h", fmt.Sprintf("-header %q is not name=value", text)}
		}
		m.Header[name] = value
	}
	if err := m.Validate(); err != nil {
		return m, usageError{i.flags.Name() + " -h", "the message would be impossible to publish: " + err.Error()}
	}
	return m, nil
}

// replace stores the new form of a message once it is confirmed.
func (i *inspection) replace(ctx context.Context, old outbox.Parked, m pubsub.Message, requeue bool) error {
	preview := func(w io.Writer) error {
		fmt.Fprintln(w, "before:")
		if err := writeDetails(w, old, previewBytes); err != nil {
			return err
		}
		after := old
		after.Record.Message = m
		fmt.Fprintln(w, "after:")
		return writeDetails(w, after, previewBytes)
	}
	if err := i.confirm(ctx, preview, "Overwrite the message?"); err != nil {
		return err
	}
	ctx, cancel := i.work(ctx)
	defer cancel()
	seq := old.Record.Seq
	n, err := i.store.Edit(ctx, seq, m)
	if err != nil {
		return err
	}
	if n == 0 {
		return missingError([]int64{seq})
	}
	if !requeue {
		return i.report(n, "edited")
	}
	n, err = i.store.Requeue(ctx, seq)
	if err != nil {
		return fmt.Errorf("the message is edited and not yet requeued; requeue it: %w", err)
	}
	if n == 0 {
		return missingError([]int64{seq})
	}
	return i.report(n, "edited", "requeued")
}

// previewBytes is how much of a payload a question shows.
const previewBytes = 1024
