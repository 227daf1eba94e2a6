package pgsaga

import "strings"

// The kinds of a change: what becomes of the lease and of the time at which the instance is due.
const (
	hold       number = iota // the owner keeps it, and the lease ends after the pause
	wait                     // nobody has it, and it is due after the pause, or at once if there is more mail than was seen
	afterLease               // nobody has it, and it is due when the lease would have ended
	end                      // it is never due
)

// always is a number of seen events that is never exceeded.
const always = 1 << 30

// changes are the columns of transitions, creations those of new instances, beats those of heartbeats.
var (
	changes = source{
		[]string{"token", "kind", "pause", "seen", "attempt", "rejected", "doubt", "timer_ns", "e_attempt", "e_took"},
		[]string{
			"id", "status", "direction", "step", "cause", "error", "state", "awaits", "marks",
			"e_step", "e_direction", "e_outcome", "e_error", "e_owner",
		},
	}
	creations = source{
		[]string{"version", "attempt", "rejected", "doubt", "timer_ns", "mail", "pause"},
		[]string{
			"id", "definition", "status", "direction", "step", "cause", "error", "state", "owner", "parent", "awaits", "marks",
			"received",
		},
	}
	beats = source{[]string{"token", "pause"}, []string{"id"}}
)

// columns are what an instance is read from.
const columns = `s.id, s.definition, s.version, s.status, s.direction, s.step, s.attempt, s.rejected, s.doubt, s.cause, s.error, s.state,
	s.owner, s.parent, s.awaits, s.timer_ns, s.marks, s.received, s.token, s.due_ms, s.created_ms, s.updated_ms`

// texts are the statements, with the prefix filled in. A lease is stored an eighth longer, and extended only when less than all of it is
// left: so most steps change no column that is in an index, and need no new entries there.
type texts struct {
	createOne, createMany, commitOne, commitMany, beatOne, beatMany string

	inOrder, claim, load, name, history, received, deliver, notify, listen string
}

func textsOf(prefix string) texts {
	fill := func(text string) string {
		return strings.NewReplacer("{p}", prefix, "{lease}", "t.pause + t.pause / 8", "{now}", "floor(date_part('epoch', statement_timestamp()) * 1000)::bigint").Replace(text)
	}
	create := func(from string) string {
		return fill(`INSERT INTO {p}sagas (id, definition, version, status, direction, step, attempt, rejected, doubt, cause, error,
			state, owner, parent, awaits, timer_ns, marks, received, mail, token, due_ms, created_ms, updated_ms)
			SELECT id, definition, version, status, direction, step, attempt, rejected, doubt, cause, error, state, owner, parent,
			awaits, timer_ns, marks, received, mail, 1, {now} + {lease}, {now}, {now} FROM ` + from + ` ON CONFLICT (id) DO NOTHING RETURNING id`)
	}
	// The change and its line of history are one statement, so that they are one commit without a transaction round them.
	commit := func(from string) string {
		return fill(`WITH u AS (UPDATE {p}sagas AS s SET status = t.status, direction = t.direction, step = t.step, attempt = t.attempt,
			rejected = t.rejected, doubt = t.doubt, cause = t.cause, error = t.error, state = t.state, awaits = t.awaits,
			timer_ns = t.timer_ns, marks = t.marks, token = s.token + 1, updated_ms = {now},
			owner = CASE WHEN t.kind = 0 THEN s.owner ELSE '' END,
			due_ms = CASE WHEN t.kind = 2 OR t.kind = 0 AND s.due_ms >= {now} + t.pause THEN s.due_ms WHEN t.kind = 0 THEN {now} + {lease}
			WHEN t.kind = 3 THEN NULL WHEN s.mail > t.seen THEN {now} ELSE {now} + t.pause END
			FROM ` + from + ` WHERE s.id = t.id AND s.token = t.token
			RETURNING s.id, t.token, s.updated_ms, t.e_step, t.e_direction, t.e_attempt, t.e_outcome, t.e_error, t.e_owner, t.e_took),
			e AS (INSERT INTO {p}saga_events (saga_id, token, step, direction, attempt, outcome, error, owner, started_ms, ended_ms)
			SELECT id, token, e_step, e_direction, e_attempt, e_outcome, e_error, e_owner, updated_ms - e_took, updated_ms
			FROM u WHERE e_outcome <> '')
			SELECT id FROM u`)
	}
	beat := func(from string) string {
		return fill(`UPDATE {p}sagas AS s SET due_ms = {now} + {lease}, updated_ms = {now} FROM ` + from +
			` WHERE s.id = t.id AND s.token = t.token RETURNING s.id`)
	}
	return texts{
		createOne: create(creations.one()), createMany: create(creations.many()),
		commitOne: commit(changes.one()), commitMany: commit(changes.many()),
		beatOne: beat(beats.one()), beatMany: beat(beats.many()),
		// A plan that was made while the table was small would go on reading all of it when it has grown. This leaves the planner the
		// indexes and has it plan once for all sizes of a batch, and holds until the end of the transaction.
		inOrder: "SELECT set_config(name, value, true) FROM (VALUES ('enable_seqscan', 'off'), ('enable_bitmapscan', 'off')," +
			" ('enable_sort', 'off'), ('enable_hashjoin', 'off'), ('enable_mergejoin', 'off')," +
			" ('plan_cache_mode', 'force_generic_plan')) AS s (name, value)",
		claim: fill(`WITH due AS MATERIALIZED (SELECT id, due_ms FROM {p}sagas WHERE due_ms <= {now}
			AND (definition, version) IN (SELECT * FROM unnest($3::text[], $4::bigint[])) ORDER BY due_ms LIMIT $5 FOR UPDATE SKIP LOCKED)
			UPDATE {p}sagas AS s SET attempt = s.attempt + CASE WHEN s.owner <> '' THEN 1 ELSE 0 END,
			doubt = CASE WHEN s.owner <> '' THEN 1 ELSE s.doubt END, owner = $1, token = s.token + 1, due_ms = {now} + $2::bigint + $2::bigint / 8, updated_ms = {now}
			FROM due WHERE s.id = due.id RETURNING ` + columns + `, due.due_ms`),
		load: fill(`SELECT ` + columns + `, 0::bigint FROM {p}sagas AS s WHERE s.id = $1`),
		name: fill(`SELECT definition FROM {p}sagas WHERE id = $1`),
		history: fill(`SELECT step, direction, attempt, outcome, error, owner, started_ms, ended_ms
			FROM {p}saga_events WHERE saga_id = $1 ORDER BY token`),
		received: fill(`SELECT received FROM {p}sagas WHERE id = $1 AND status IN ('running', 'compensating', 'stuck') FOR UPDATE`),
		deliver: fill(`UPDATE {p}sagas SET received = $2, mail = $3,
			due_ms = CASE WHEN owner = '' AND awaits <> '' AND due_ms IS NOT NULL THEN {now} ELSE due_ms END WHERE id = $1`),
		notify: fill(`SELECT pg_notify('{p}sagas', '')`),
		listen: fill(`LISTEN "{p}sagas"`),
	}
}
