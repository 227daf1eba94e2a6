package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sqlsaga"
)

// survey is one run of a command on sagas.
type survey struct {
	*task
	definition string
	store      *sqlsaga.Store
	// operator repairs. It knows no definition of a service, and never runs.
	operator *saga.Runner
}

// sagaCommand is what "backstay saga NAME" does. prepare declares flags of its own and returns what to run.
type sagaCommand struct {
	name, args, about string
	prepare           func(*survey) func(context.Context) error
}

func sagaCommands() []sagaCommand {
	return []sagaCommand{
		{"list", "", "list the sagas that are stuck, or those of another status", (*survey).list},
		{"show", "ID", "show one with its state and its whole history", (*survey).show},
		{"retry", "ID... | -all", "try the step again at which it is stuck, after the cause was removed", (*survey).retry},
		{"skip", "ID... | -all", "pass over the step, leaving its effect as it is, and go on", (*survey).skip},
		{"done", "ID... | -all", "say that the step was done, or undone, by hand, and go on", (*survey).done},
		{"abort", "ID... | -all", "give up: before the pivot undo what was done, else leave it as it is", (*survey).abort},
		{"stats", "", "tell how many there are of each definition and status", (*survey).stats},
	}
}

// saga carries out "backstay saga ...".
func (c console) saga(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return usageError{"backstay saga help", "backstay saga: a command is missing"}
	}
	if args[0] == "help" || args[0] == "-h" || args[0] == "-help" || args[0] == "--help" {
		c.sagaHelp()
		return nil
	}
	for _, cmd := range sagaCommands() {
		if cmd.name == args[0] {
			return c.survey(ctx, cmd, args[1:])
		}
	}
	return usageError{"backstay saga help", fmt.Sprintf("backstay saga: there is no command %q", args[0])}
}

func (c console) sagaHelp() {
	fmt.Fprint(c.out, "usage: backstay saga COMMAND -db URL [flags] [ID...]\n\n")
	for _, cmd := range sagaCommands() {
		fmt.Fprintf(c.out, "  %-6s %-14s %s\n", cmd.name, cmd.args, cmd.about)
	}
	fmt.Fprintf(c.out, "\nURL is one of\n")
	for _, e := range engines() {
		fmt.Fprintf(c.out, "  %s\n", e.form)
	}
	fmt.Fprintf(c.out, "and may stand in the variable %s, where a password is not seen by others.\n", envDB)
	fmt.Fprint(c.out, "ID is what list shows. A repair is in the saga's history at once; a service that runs its definition carries it out.\n")
	fmt.Fprint(c.out, "For the flags of a command: backstay saga COMMAND -h\n")
}

// survey runs cmd: flags, database, work.
func (c console) survey(ctx context.Context, cmd sagaCommand, args []string) error {
	s := &survey{task: newTask(c, "backstay saga "+cmd.name, "saga")}
	run := cmd.prepare(s)
	e, helped, err := s.begin(args, cmd.args, func() error {
		if slices.Contains(s.args, "") {
			return errors.New("an ID is empty")
		}
		_, err := sqlsaga.New(new(sql.DB), sqlsaga.SQLite(), sqlsaga.WithPrefix(s.prefix)) // it looks at the prefix alone
		return err
	})
	if err != nil || helped {
		return err
	}
	opening, cancel := s.work(ctx)
	store, db, err := openSagas(opening, e, s.db, s.prefix)
	cancel()
	if err != nil {
		return err
	}
	s.store = store
	s.operator, err = newOperator(store)
	if err == nil {
		err = run(ctx)
	}
	return errors.Join(err, db.Close())
}

// newOperator makes a runner that only repairs. A runner must have a definition; nothing is ever started of this one.
func newOperator(store saga.Store) (*saga.Runner, error) {
	none := saga.Step[struct{}]{Name: "none", Do: func(context.Context, *struct{}) error { return nil }}
	d, err := saga.Define("backstay operator", 1, none)
	if err != nil {
		return nil, err
	}
	return saga.NewRunner(store, saga.Config{Name: "operator"}, d)
}

// pick declares the flag that narrows a command to a definition.
func (s *survey) pick() {
	s.flags.StringVar(&s.definition, "definition", "", "only sagas of the definition of this `name`, any version")
}

// find looks up the sagas that the arguments name; those that are not stuck are faults.
func (s *survey) find(ctx context.Context) (found []saga.Instance, faults []error, err error) {
	ctx, cancel := s.work(ctx)
	defer cancel()
	seen := map[string]bool{}
	for _, id := range s.args {
		if seen[id] {
			continue
		}
		seen[id] = true
		in, _, err := s.operator.Inspect(ctx, id)
		switch {
		case errors.Is(err, saga.ErrNotFound):
			faults = append(faults, fmt.Errorf("%w: there is no saga %q", errNotStuck, id))
		case err != nil:
			return nil, nil, err
		case in.Status != saga.Stuck:
			faults = append(faults, fmt.Errorf("%w: %q is %s", errNotStuck, id, in.Status))
		case s.definition != "" && in.Name != s.definition:
			faults = append(faults, fmt.Errorf("%w: %q is of the definition %q", errNotStuck, id, in.Name))
		default:
			found = append(found, in)
		}
	}
	return found, faults, nil
}

// all reads every stuck saga.
func (s *survey) all(ctx context.Context) (found []saga.Instance, err error) {
	ctx, cancel := s.work(ctx)
	defer cancel()
	f := saga.Filter{Definition: s.definition, Statuses: []saga.Status{saga.Stuck}, Limit: page}
	for {
		list, err := s.operator.List(ctx, f)
		if err != nil {
			return nil, err
		}
		found = append(found, list...)
		if len(list) < page {
			return found, nil
		}
		f.After = list[len(list)-1].ID
	}
}

// statuses reads a list of statuses.
func statuses(text string) ([]saga.Status, error) {
	if text == "all" {
		return nil, nil
	}
	known := []saga.Status{saga.Running, saga.Compensating, saga.Completed, saga.Compensated, saga.Stuck, saga.Aborted}
	var list []saga.Status
	for name := range strings.SplitSeq(text, ",") {
		status := saga.Status(strings.TrimSpace(name))
		if !slices.Contains(known, status) {
			return nil, fmt.Errorf("-status %q: there are running, compensating, stuck, completed, compensated, aborted, and all", name)
		}
		list = append(list, status)
	}
	return list, nil
}
