package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/backstay-go/backstay/outbox"
)

// Bounds of what a cell of a table shows, in bytes.
const (
	maxCell   = 40
	maxReason = 80
)

// entry is a parked message as JSON.
type entry struct {
	Seq          int64             `json:"seq"`
	ID           string            `json:"id"`
	Topic        string            `json:"topic"`
	Key          string            `json:"key"`
	Attempts     int               `json:"attempts"`
	Reason       string            `json:"reason"`
	ParkedAt     time.Time         `json:"parked_at"`
	SentAt       time.Time         `json:"sent_at"`
	Header       map[string]string `json:"header"`
	PayloadBytes int               `json:"payload_bytes"`
	Payload      *[]byte           `json:"payload,omitempty"` // base64, in "show" only
}

func entryOf(p outbox.Parked) entry {
	m := p.Record.Message
	e := entry{
		Seq: p.Record.Seq, ID: m.ID, Topic: m.Topic, Key: m.Key, Attempts: p.Record.Attempts, Reason: p.Reason,
		ParkedAt: p.Since.UTC(), SentAt: m.Time.UTC(), Header: m.Header, PayloadBytes: len(m.Payload),
	}
	if e.Header == nil {
		e.Header = map[string]string{}
	}
	return e
}

func entriesOf(list []outbox.Parked) []entry {
	entries := make([]entry, len(list))
	for i, p := range list {
		entries[i] = entryOf(p)
	}
	return entries
}

func (i *inspection) list() func(context.Context) error {
	after := i.flags.Int64("after", 0, "begin after this `SEQ`")
	limit := i.flags.Int("limit", 50, "list at most `N` messages")
	return func(ctx context.Context) error {
		if len(i.args) > 0 || *limit < 1 {
			return usageError{i.flags.Name() + " -h", "list takes no arguments, and a -limit of at least 1"}
		}
		ctx, cancel := i.work(ctx)
		defer cancel()
		list, err := i.store.Parked(ctx, *after, *limit+1)
		if err != nil {
			return err
		}
		more := len(list) > *limit
		list = list[:min(len(list), *limit)]
		if i.json {
			return writeJSON(i.out, entriesOf(list))
		}
		if len(list) == 0 {
			fmt.Fprintln(i.out, "no message is parked")
			return nil
		}
		if err := writeTable(i.out, list); err != nil {
			return err
		}
		if more {
			fmt.Fprintf(i.out, "there are more: -after %d\n", list[len(list)-1].Record.Seq)
		}
		return nil
	}
}

func writeTable(w io.Writer, list []outbox.Parked) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SEQ\tPARKED\tATTEMPTS\tTOPIC\tKEY\tID\tREASON")
	for _, p := range list {
		m := p.Record.Message
		fmt.Fprintf(t, "%d\t%s\t%d\t%s\t%s\t%s\t%s\n", p.Record.Seq, moment(p.Since), p.Record.Attempts,
			safe(m.Topic, maxCell), safe(m.Key, maxCell), safe(m.ID, maxCell), safe(p.Reason, maxReason))
	}
	return t.Flush()
}

func moment(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

func (i *inspection) show() func(context.Context) error {
	limit := i.flags.Int("bytes", 4096, "show at most `N` bytes of the payload")
	raw := i.flags.Bool("payload", false, "write the payload alone, as it is, to a file or pipe")
	return func(ctx context.Context) error {
		seqs, err := i.seqs()
		if err != nil || len(seqs) != 1 || *limit < 0 {
			return usageError{i.flags.Name() + " -h", "show takes one SEQ, and -bytes of at least 0"}
		}
		if *raw && i.outIsTerminal {
			return usageError{i.flags.Name() + " -h", "a terminal might obey what is in a payload: send it to a file, as in: show -payload SEQ >FILE"}
		}
		found, missing, err := i.find(ctx, seqs)
		if err := errors.Join(err, missingError(missing)); err != nil {
			return err
		}
		switch {
		case *raw:
			_, err := i.out.Write(found[0].Record.Message.Payload)
			return err
		case i.json:
			e := entryOf(found[0])
			payload := append([]byte{}, found[0].Record.Message.Payload...)
			e.Payload = &payload
			return writeJSON(i.out, e)
		default:
			return writeDetails(i.out, found[0], *limit)
		}
	}
}

func writeDetails(w io.Writer, p outbox.Parked, limit int) error {
	m := p.Record.Message
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, value string) { fmt.Fprintf(t, "%s\t%s\n", name, value) }
	row("seq", strconv.FormatInt(p.Record.Seq, 10))
	row("id", safe(m.ID, maxError))
	row("topic", safe(m.Topic, maxError))
	row("key", safe(m.Key, maxError))
	row("sent", moment(m.Time))
	row("parked", moment(p.Since))
	row("attempts", strconv.Itoa(p.Record.Attempts))
	row("reason", safe(p.Reason, maxError))
	for _, name := range slices.Sorted(maps.Keys(m.Header)) {
		row("header", safe(name+"="+m.Header[name], maxError))
	}
	row("payload", fmt.Sprintf("%d bytes", len(m.Payload)))
	if err := t.Flush(); err != nil {
		return err
	}
	if len(m.Payload) > 0 {
		writePayload(w, m.Payload, limit)
	}
	return nil
}

// counted is where stores stop counting.
const counted = 100_000

func (i *inspection) stats() func(context.Context) error {
	return func(ctx context.Context) error {
		if len(i.args) > 0 {
			return usageError{i.flags.Name() + " -h", "stats takes no arguments"}
		}
		ctx, cancel := i.work(ctx)
		defer cancel()
		b, err := i.store.Backlog(ctx)
		if err != nil {
			return err
		}
		if i.json {
			return writeJSON(i.out, struct {
				Pending     int64 `json:"pending"`
				AtLeast     bool  `json:"at_least"` // pending counts no further
				Parked      int64 `json:"parked"`
				OldestAgeMS int64 `json:"oldest_age_ms"`
			}{b.Pending, b.Pending >= counted, b.Parked, b.OldestAge.Milliseconds()})
		}
		pending := strconv.FormatInt(b.Pending, 10)
		if b.Pending >= counted {
			pending += " or more"
		}
		t := tabwriter.NewWriter(i.out, 0, 0, 2, ' ', 0)
		fmt.Fprintf(t, "pending\t%s\nparked\t%d\noldest age\t%s\n", pending, b.Parked, b.OldestAge.Round(time.Millisecond))
		return t.Flush()
	}
}
