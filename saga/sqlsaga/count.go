package sqlsaga

import (
	"context"
	"database/sql"
	"time"

	"github.com/backstay-go/backstay/saga"
)

// Count tells how many instances of a definition have a status.
type Count struct {
	saga.Ref
	Status saga.Status
	// Instances is their number.
	Instances int64
	// Waiting is how many of them nobody works on until a later time: they wait for an event, a time, a child or the end of a
	// pause.
	Waiting int64
	// OldestAge is for how long the oldest of them exists, by the database's clock; OldestID names it, or another as old.
	OldestAge time.Duration
	OldestID  string
}

// Counts tells how many instances there are, by definition, version and status, in this order. It reads the whole table, ended
// instances that Purge has not yet deleted included: it is for people and for a metric read every minute.
func (s *Store) Counts(ctx context.Context) ([]Count, error) {
	query := s.dialect.text(s.prefix, `SELECT g.definition, g.version, g.status, g.n, g.waiting, {now} - g.oldest,
		(SELECT min(i.id) FROM {prefix}sagas i WHERE i.definition = g.definition AND i.version = g.version AND i.status = g.status
			AND i.created_ms = g.oldest)
		FROM (SELECT definition, version, status, count(*) AS n, min(created_ms) AS oldest,
			sum(CASE WHEN owner = '' AND due_ms > {now} THEN 1 ELSE 0 END) AS waiting
			FROM {prefix}sagas GROUP BY definition, version, status) g ORDER BY g.definition, g.version, g.status`)
	counts, err := collect(ctx, s.db, query, func(rows *sql.Rows) (c Count, err error) {
		var age int64
		var id sql.NullString // gone, where the rows changed while they were read
		err = rows.Scan(&c.Name, &c.Version, &c.Status, &c.Instances, &c.Waiting, &age, &id)
		c.OldestAge, c.OldestID = time.Duration(max(0, age))*time.Millisecond, id.String
		return c, err
	})
	return counts, wrap("count", err)
}
