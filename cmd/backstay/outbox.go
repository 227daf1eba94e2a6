package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/sqloutbox"
)

// inspection is one run of a command on an outbox.
type inspection struct {
	*task
	store store
}

// store is what the commands need of an outbox.
type store interface {
	outbox.Inspector
	Backlog(ctx context.Context) (outbox.Backlog, error)
}

// outboxCommand is what "backstay outbox NAME" does. prepare declares flags of its own and returns what to run.
type outboxCommand struct {
	name, args, about string
	prepare           func(*inspection) func(context.Context) error
}

func outboxCommands() []outboxCommand {
	return []outboxCommand{
		{"list", "", "list the messages that were given up, whose keys wait behind them", (*inspection).list},
		{"show", "SEQ", "show one of them with its payload", (*inspection).show},
		{"requeue", "SEQ... | -all", "have them published again, after the cause was removed", (*inspection).requeue},
		{"skip", "SEQ... | -all", "delete them, so that their keys go on without them", (*inspection).skip},
		{"edit", "SEQ", "change topic, headers or payload of one of them", (*inspection).edit},
		{"stats", "", "tell how much waits, and for how long", (*inspection).stats},
	}
}

// outbox carries out "backstay outbox ...".
func (c console) outbox(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return usageError{"backstay outbox help", "backstay outbox: a command is missing"}
	}
	if args[0] == "help" || args[0] == "-h" || args[0] == "-help" || args[0] == "--help" {
		c.outboxHelp()
		return nil
	}
	for _, cmd := range outboxCommands() {
		if cmd.name == args[0] {
			return c.inspect(ctx, cmd, args[1:])
		}
	}
	return usageError{"backstay outbox help", fmt.Sprintf("backstay outbox: there is no command %q", args[0])}
}

func (c console) outboxHelp() {
	fmt.Fprint(c.out, "usage: backstay outbox COMMAND -db URL [flags] [SEQ...]\n\n")
	for _, cmd := range outboxCommands() {
		fmt.Fprintf(c.out, "  %-8s %-14s %s\n", cmd.name, cmd.args, cmd.about)
	}
	fmt.Fprintf(c.out, "\nURL is one of\n")
	for _, e := range engines() {
		fmt.Fprintf(c.out, "  %s\n", e.form)
	}
	fmt.Fprintf(c.out, "and may stand in the variable %s, where a password is not seen by others.\n", envDB)
	fmt.Fprintf(c.out, "SEQ is the number that list shows. For the flags of a command: backstay outbox COMMAND -h\n")
}

// inspect runs cmd: flags, database, work.
func (c console) inspect(ctx context.Context, cmd outboxCommand, args []string) error {
	name := "backstay outbox " + cmd.name
	i := &inspection{task: newTask(c, name, "outbox")}
	run := cmd.prepare(i)
	e, helped, err := i.begin(args, cmd.args, func() error {
		_, err := i.seqs()
		return errors.Join(err, sqloutbox.Config{Prefix: i.prefix}.Validate())
	})
	if err != nil || helped {
		return err
	}
	opening, cancel := i.work(ctx)
	s, db, err := openStore(opening, e, i.db, i.prefix)
	cancel()
	if err != nil {
		return err
	}
	i.store = s
	return errors.Join(run(ctx), db.Close())
}

// seqs reads the arguments.
func (i *inspection) seqs() ([]int64, error) {
	seqs := make([]int64, 0, len(i.args))
	seen := map[int64]bool{}
	for _, text := range i.args {
		n, err := strconv.ParseInt(strings.TrimSuffix(text, ","), 10, 64)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%q is not a SEQ: it is a number that list shows", text)
		}
		if !seen[n] {
			seen[n] = true
			seqs = append(seqs, n)
		}
	}
	return seqs, nil
}

// page is how many messages are read from the store at once.
const page = 200

// find looks up parked messages and tells which of the numbers are none.
func (i *inspection) find(ctx context.Context, seqs []int64) (found []outbox.Parked, missing []int64, err error) {
	ctx, cancel := i.work(ctx)
	defer cancel()
	for _, seq := range seqs {
		list, err := i.store.Parked(ctx, seq-1, 1)
		if err != nil {
			return nil, nil, err
		}
		if len(list) == 0 || list[0].Record.Seq != seq {
			missing = append(missing, seq)
			continue
		}
		found = append(found, list[0])
	}
	return found, missing, nil
}

// all reads every parked message.
func (i *inspection) all(ctx context.Context) (found []outbox.Parked, err error) {
	ctx, cancel := i.work(ctx)
	defer cancel()
	for after := int64(0); ; {
		list, err := i.store.Parked(ctx, after, page)
		if err != nil {
			return nil, err
		}
		found = append(found, list...)
		if len(list) < page {
			return found, nil
		}
		after = list[len(list)-1].Record.Seq
	}
}

// missingError names messages that are not parked.
func missingError(seqs []int64) error {
	if len(seqs) == 0 {
		return nil
	}
	texts := make([]string, len(seqs))
	for i, seq := range seqs {
		texts[i] = strconv.FormatInt(seq, 10)
	}
	return fmt.Errorf("%w: %s: published, skipped or requeued meanwhile, or never given up; list shows what is parked", errNotParked, strings.Join(texts, ", "))
}
