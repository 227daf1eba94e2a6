package pgsaga

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/backstay-go/backstay/saga"
)

// Claim implements saga.Store, in one round trip. Runners that claim at the same moment pass over each other's instances.
func (s *Store) Claim(ctx context.Context, c saga.Claim) ([]saga.Instance, error) {
	names, versions := make([]string, len(c.Known)), make([]int64, len(c.Known))
	for i, ref := range c.Known {
		names[i], versions[i] = ref.Name, int64(ref.Version)
	}
	var due []dated
	b := &pgx.Batch{}
	b.Queue(s.text.inOrder)
	b.Queue(s.text.claim, c.Owner, int64(millis(c.Lease)), names, versions, c.Limit).Query(func(rows pgx.Rows) (err error) {
		due, err = scanAll(rows)
		return err
	})
	if err := s.pool.SendBatch(ctx, b).Close(); err != nil {
		return nil, wrap("claim", err)
	}
	slices.SortFunc(due, func(a, b dated) int { return cmp.Compare(a.due, b.due) })
	claimed := make([]saga.Instance, len(due))
	for i, d := range due {
		claimed[i] = d.Instance
	}
	return claimed, nil
}

// Load implements saga.Store, in one round trip.
func (s *Store) Load(ctx context.Context, id string) (saga.Instance, []saga.Event, error) {
	var found []dated
	var history []saga.Event
	b := &pgx.Batch{} // each statement sees what was committed before it began, so that no line of history is missing
	b.Queue(s.text.load, id).Query(func(rows pgx.Rows) (err error) {
		found, err = scanAll(rows)
		return err
	})
	b.Queue(s.text.history, id).Query(func(rows pgx.Rows) (err error) {
		history, err = pgx.CollectRows(rows, scanEvent)
		return err
	})
	err := s.pool.SendBatch(ctx, b).Close()
	if err == nil && len(found) == 0 {
		err = saga.ErrNotFound
	}
	if err != nil {
		return saga.Instance{}, nil, fmt.Errorf("pgsaga: load instance %q: %w", id, err)
	}
	return found[0].Instance, history, nil
}

// dated is an instance and when it was due before it was claimed.
type dated struct {
	saga.Instance
	due int64
}

func scanAll(rows pgx.Rows) (all []dated, err error) {
	for rows.Next() {
		in, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, in)
	}
	return all, rows.Err()
}

func scan(rows pgx.Rows) (in dated, err error) {
	var due *int64
	var state, marks, received string
	var created, updated int64
	var doubt int
	err = rows.Scan(&in.ID, &in.Name, &in.Version, &in.Status, &in.Direction, &in.Step, &in.Attempt, &in.Rejected, &doubt, &in.Cause,
		&in.Error, &state, &in.Owner, &in.Parent, &in.Awaits, &in.Timer, &marks, &received, &in.Token, &due, &created, &updated, &in.due)
	if err != nil {
		return in, err
	}
	in.State, in.Doubt = json.RawMessage(state), doubt != 0
	in.Created, in.Updated = time.UnixMilli(created), time.UnixMilli(updated)
	if due != nil {
		in.Due = time.UnixMilli(*due)
	}
	if in.Marks, err = decode[saga.Mark](marks); err != nil {
		return in, fmt.Errorf("instance %q: marks: %w", in.ID, err)
	}
	if in.Received, err = decode[json.RawMessage](received); err != nil {
		return in, fmt.Errorf("instance %q: received: %w", in.ID, err)
	}
	return in, nil
}

func scanEvent(row pgx.CollectableRow) (e saga.Event, err error) {
	var started, ended int64
	err = row.Scan(&e.Step, &e.Direction, &e.Attempt, &e.Outcome, &e.Error, &e.Owner, &started, &ended)
	e.Started, e.Ended = time.UnixMilli(started), time.UnixMilli(ended)
	return e, err
}
