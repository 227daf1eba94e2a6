package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/backstay-go/backstay/saga"
)

// remedy is a repair by its command.
type remedy struct {
	// done is what the report calls it; question is what is asked before, nothing if it is empty.
	done, question string
	apply          func(r *saga.Runner, ctx context.Context, id string) error
}

func (s *survey) retry() func(context.Context) error {
	return s.repair(remedy{"retried", "", (*saga.Runner).Retry})
}

func (s *survey) skip() func(context.Context) error {
	return s.repair(remedy{"skipped", "Pass over the step of %s, whatever it did?", (*saga.Runner).Skip})
}

func (s *survey) done() func(context.Context) error {
	return s.repair(remedy{"marked_done", "Take the step of %s as done by hand?", (*saga.Runner).MarkDone})
}

func (s *survey) abort() func(context.Context) error {
	return s.repair(remedy{"aborted", "Give up %s for good?", (*saga.Runner).Abort})
}

// repair declares the flags of a repair and returns it.
func (s *survey) repair(r remedy) func(context.Context) error {
	all := s.flags.Bool("all", false, "every saga that is stuck")
	if r.question != "" {
		s.flags.BoolVar(&s.yes, "yes", false, "do not ask")
	}
	s.pick()
	return func(ctx context.Context) error {
		if *all == (len(s.args) > 0) {
			return s.wrong("give the ID of one or more sagas, or -all")
		}
		var found []saga.Instance
		var faults []error
		var err error
		if *all {
			found, err = s.all(ctx)
		} else {
			found, faults, err = s.find(ctx)
		}
		if err != nil {
			return err
		}
		if len(found) > 0 && r.question != "" {
			if err := s.confirm(ctx, preview(found), fmt.Sprintf(r.question, sagas(len(found)))); err != nil {
				return err
			}
		}
		return s.apply(ctx, r, found, faults)
	}
}

// preview shows what a question is about.
func preview(found []saga.Instance) func(io.Writer) error {
	return func(w io.Writer) error {
		if err := writeSagas(w, found[:min(len(found), previewed)]); err != nil {
			return err
		}
		if more := len(found) - previewed; more > 0 {
			fmt.Fprintf(w, "and %d more\n", more)
		}
		return nil
	}
}

func sagas(n int) string {
	if n == 1 {
		return "1 saga"
	}
	return fmt.Sprintf("%d sagas", n)
}

// apply repairs one after the other, and reports. What somebody else has repaired meanwhile is a fault; trouble ends it.
func (s *survey) apply(ctx context.Context, r remedy, found []saga.Instance, faults []error) error {
	ctx, cancel := s.work(ctx)
	defer cancel()
	n := 0
	for _, in := range found {
		err := r.apply(s.operator, ctx, in.ID)
		if errors.Is(err, saga.ErrStatus) || errors.Is(err, saga.ErrFenced) || errors.Is(err, saga.ErrNotFound) {
			faults = append(faults, fmt.Errorf("%w: %q was repaired by somebody else meanwhile", errNotStuck, in.ID))
			continue
		}
		if err != nil {
			faults = append([]error{fmt.Errorf("%d of %d were %s before this; look again before you repair the others: %w", n, len(found), r.done, err)}, faults...)
			return errors.Join(s.reportSagas(n, r.done), plain(faults))
		}
		n++
	}
	return errors.Join(s.reportSagas(n, r.done), errors.Join(faults...))
}

// plain is faults without what would make the exit code that of one that is not stuck: there was trouble.
func plain(faults []error) error { return errors.New(errors.Join(faults...).Error()) }

func (s *survey) reportSagas(n int, done string) error {
	if s.json {
		return writeJSON(s.out, map[string]int{done: n})
	}
	if done == "marked_done" {
		done = "marked as done"
	}
	_, err := fmt.Fprintf(s.out, "%s %s\n", sagas(n), done)
	return err
}
