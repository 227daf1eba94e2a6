package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/backstay-go/backstay/saga"
)

// sagaEntry is a saga as JSON.
type sagaEntry struct {
	ID         string          `json:"id"`
	Definition string          `json:"definition"`
	Version    int             `json:"version"`
	Status     saga.Status     `json:"status"`
	Direction  saga.Direction  `json:"direction"`
	Step       string          `json:"step"`
	Attempts   int             `json:"attempts"`
	Cause      string          `json:"cause"`
	Error      string          `json:"error"`
	Awaits     string          `json:"awaits"`
	Ordered    saga.Outcome    `json:"ordered,omitempty"`
	Owner      string          `json:"owner"`
	Parent     string          `json:"parent"`
	Created    time.Time       `json:"created"`
	Updated    time.Time       `json:"updated"`
	Due        *time.Time      `json:"due"`                  // null when nothing is
	State      json.RawMessage `json:"state,omitempty"`      // in "show" only, unless it is no JSON
	StateText  *string         `json:"state_text,omitempty"` // in "show" only, if it is no JSON
	History    []eventEntry    `json:"history,omitempty"`    // in "show" only
}

type eventEntry struct {
	Step      string         `json:"step"`
	Direction saga.Direction `json:"direction"`
	Attempt   int            `json:"attempt"`
	Outcome   saga.Outcome   `json:"outcome"`
	Error     string         `json:"error"`
	Owner     string         `json:"owner"`
	Started   time.Time      `json:"started"`
	Ended     time.Time      `json:"ended"`
}

func sagaEntryOf(in saga.Instance) sagaEntry {
	e := sagaEntry{
		ID: in.ID, Definition: in.Name, Version: in.Version, Status: in.Status, Direction: in.Direction, Step: in.Step, Attempts: in.Attempt,
		Cause: in.Cause, Error: in.Error, Awaits: in.Awaits, Ordered: in.Marks[""].Order, Owner: in.Owner, Parent: in.Parent,
		Created: in.Created.UTC(), Updated: in.Updated.UTC(),
	}
	if !in.Due.IsZero() {
		due := in.Due.UTC()
		e.Due = &due
	}
	return e
}

func (s *survey) list() func(context.Context) error {
	status := s.flags.String("status", "stuck", "sagas of these `statuses`, separated by commas; all for any")
	after := s.flags.String("after", "", "begin after this `ID`")
	limit := s.flags.Int("limit", 50, "list at most `N` sagas")
	s.pick()
	return func(ctx context.Context) error {
		if len(s.args) > 0 || *limit < 1 {
			return s.wrong("list takes no arguments, and a -limit of at least 1")
		}
		chosen, err := statuses(*status)
		if err != nil {
			return s.wrong(err.Error())
		}
		ctx, cancel := s.work(ctx)
		defer cancel()
		list, err := s.operator.List(ctx, saga.Filter{Definition: s.definition, Statuses: chosen, After: *after, Limit: *limit + 1})
		if err != nil {
			return err
		}
		more := len(list) > *limit
		list = list[:min(len(list), *limit)]
		if s.json {
			entries := make([]sagaEntry, len(list))
			for i, in := range list {
				entries[i] = sagaEntryOf(in)
			}
			return writeJSON(s.out, entries)
		}
		if len(list) == 0 {
			fmt.Fprintf(s.out, "no saga is %s\n", map[bool]string{true: "there", false: safe(*status, maxCell)}[chosen == nil])
			return nil
		}
		if err := writeSagas(s.out, list); err != nil {
			return err
		}
		if more {
			fmt.Fprintf(s.out, "there are more: -after %s\n", safe(list[len(list)-1].ID, maxError))
		}
		return nil
	}
}

func writeSagas(w io.Writer, list []saga.Instance) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ID\tDEFINITION\tSTATUS\tSTEP\tATTEMPTS\tUPDATED\tERROR")
	for _, in := range list {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%s\t%s\n", safe(in.ID, maxCell), safe(ref(in.Ref), maxCell), in.Status,
			safe(string(in.Direction)+" "+in.Step, maxCell), in.Attempt, moment(in.Updated), safe(in.Error, maxReason))
	}
	return t.Flush()
}

func ref(r saga.Ref) string { return fmt.Sprintf("%s/%d", r.Name, r.Version) }

func (s *survey) show() func(context.Context) error {
	limit := s.flags.Int("bytes", 4096, "show at most `N` bytes of the state")
	return func(ctx context.Context) error {
		if len(s.args) != 1 || *limit < 0 {
			return s.wrong("show takes one ID, and -bytes of at least 0")
		}
		ctx, cancel := s.work(ctx)
		defer cancel()
		in, history, err := s.operator.Inspect(ctx, s.args[0])
		if errors.Is(err, saga.ErrNotFound) {
			return fmt.Errorf("%w: there is no saga %q", errNotStuck, s.args[0])
		}
		if err != nil {
			return err
		}
		if s.json {
			return writeJSON(s.out, whole(in, history))
		}
		return writeSaga(s.out, in, history, *limit)
	}
}

// whole is everything about a saga.
func whole(in saga.Instance, history []saga.Event) sagaEntry {
	e := sagaEntryOf(in)
	if json.Valid(in.State) {
		e.State = in.State
	} else {
		text := string(in.State)
		e.StateText = &text
	}
	for _, ev := range history {
		e.History = append(e.History, eventEntry{
			ev.Step, ev.Direction, ev.Attempt, ev.Outcome, ev.Error, ev.Owner, ev.Started.UTC(), ev.Ended.UTC(),
		})
	}
	return e
}

func writeSaga(w io.Writer, in saga.Instance, history []saga.Event, limit int) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(t, "%s\t%s\n", name, safe(value, maxError))
		}
	}
	row("id", in.ID)
	row("definition", ref(in.Ref))
	row("status", string(in.Status))
	row("step", string(in.Direction)+" "+in.Step)
	row("attempts", strconv.Itoa(in.Attempt))
	row("turned back", in.Cause)
	row("error", in.Error)
	row("awaits", in.Awaits)
	row("ordered", string(in.Marks[""].Order))
	row("parent", in.Parent)
	row("held by", in.Owner)
	row("created", moment(in.Created))
	row("updated", moment(in.Updated))
	if !in.Due.IsZero() {
		row("due", moment(in.Due))
	}
	row("state", fmt.Sprintf("%d bytes", len(in.State)))
	if err := t.Flush(); err != nil {
		return err
	}
	writeState(w, in.State, limit)
	return writeHistory(w, history)
}

// writeState shows the first limit bytes of a state, indented so that no line can pass for the command's own.
func writeState(w io.Writer, state []byte, limit int) {
	text := string(state[:min(len(state), limit)])
	fmt.Fprintf(w, "  %s\n", safe(text, len(text)))
	if more := len(state) - len(text); more > 0 {
		fmt.Fprintf(w, "  … %d bytes more: -bytes N shows N, -json writes all of them\n", more)
	}
}

func writeHistory(w io.Writer, history []saga.Event) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ENDED\tSTEP\tATTEMPT\tOUTCOME\tERROR\tBY")
	for _, e := range history {
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%s\t%s\n", moment(e.Ended), safe(string(e.Direction)+" "+e.Step, maxCell), e.Attempt, e.Outcome,
			safe(e.Error, maxReason), safe(e.Owner, maxCell))
	}
	return t.Flush()
}

func (s *survey) stats() func(context.Context) error {
	return func(ctx context.Context) error {
		if len(s.args) > 0 {
			return s.wrong("stats takes no arguments")
		}
		ctx, cancel := s.work(ctx)
		defer cancel()
		counts, err := s.store.Counts(ctx)
		if err != nil {
			return err
		}
		type entry struct {
			Definition  string      `json:"definition"`
			Version     int         `json:"version"`
			Status      saga.Status `json:"status"`
			Instances   int64       `json:"instances"`
			Waiting     int64       `json:"waiting"`
			OldestAgeMS int64       `json:"oldest_age_ms"`
			OldestID    string      `json:"oldest_id"`
		}
		entries := []entry{}
		t := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(t, "DEFINITION\tSTATUS\tSAGAS\tWAITING\tOLDEST\tAGE")
		for _, c := range counts {
			entries = append(entries, entry{c.Name, c.Version, c.Status, c.Instances, c.Waiting, c.OldestAge.Milliseconds(), c.OldestID})
			fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%s\t%s\n", safe(ref(c.Ref), maxCell), c.Status, c.Instances, c.Waiting,
				safe(c.OldestID, maxCell), c.OldestAge.Round(time.Millisecond))
		}
		switch {
		case s.json:
			return writeJSON(s.out, entries)
		case len(counts) == 0:
			_, err := fmt.Fprintln(s.out, "there is no saga")
			return err
		}
		return t.Flush()
	}
}
