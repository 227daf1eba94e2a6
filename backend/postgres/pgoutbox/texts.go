package pgoutbox

import "strings"

// texts are the statements, with the prefix filled in.
type texts struct {
	insertOne, insertOneNotify, insertMany, insertManyNotify, lockKeys string

	lockLeases, bury, join, share, take, give, dead                         string
	inOrder, fetch, fetchExcept, backlog, remove, hold, next, last, writers string
	claim, result, save, forget, listen                                     string
}

// now is the database's clock in milliseconds.
const now = "floor(date_part('epoch', clock_timestamp()) * 1000)::bigint"

func textsOf(prefix string) texts {
	const (
		columns = "lane, id, topic, msg_key, header, payload, sent_at"
		insert  = "INSERT INTO {p}outbox (" + columns + ") "
		one     = insert + "VALUES ($1, $2, $3, $4, $5, $6, $7)"
		// The rows are sorted before the outer query draws their numbers.
		many = insert + "SELECT " + columns +
			" FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bytea[], $7::bigint[])" +
			" WITH ORDINALITY AS r (" + columns + ", n) ORDER BY n"
		// Locked in the order of the buckets, as Lease locks them. A lease that was lost while this waited is judged anew.
		held = "held AS MATERIALIZED (SELECT bucket FROM {p}outbox_leases WHERE owner = $1 AND epoch <> 0 AND epoch = ($2::bigint[])[bucket + 1]" +
			" ORDER BY bucket FOR UPDATE)"
		share   = "(SELECT (63 + count(*)) / count(*) FROM {p}outbox_relays)" // of 64 buckets, rounded up
		mask    = "(SELECT COALESCE(bit_or(1::bigint << bucket::int), 0) FROM held)"
		anyHeld = "(SELECT EXISTS (SELECT 1 FROM {p}outbox_holds))"
		inMask  = "(" + mask + " >> (lane & 63)::int) & 1 = 1"
		runs    = "unnest($3::bigint[], $4::bigint[]) AS r (first, last)"
	)
	fill := func(text string) string {
		return strings.NewReplacer("{p}", prefix, "{channel}", channel(prefix)).Replace(text)
	}
	notify := func(insert string) string {
		return fill("WITH stored AS (" + insert + ") SELECT pg_notify('{channel}', '')")
	}
	// While nothing is held, which is asked once, no row is looked up among the holds. The clock is read once, so that all of a lane
	// is judged at one moment.
	fetch := func(except string) string {
		return fill("WITH clock AS MATERIALIZED (SELECT " + now + " AS now) " +
			"SELECT o.seq, o.lane, o.id, o.topic, o.msg_key, o.header, o.payload, o.sent_at, CASE WHEN " + anyHeld +
			" THEN COALESCE((SELECT h.attempts FROM {p}outbox_holds h WHERE h.lane = o.lane AND h.seq = o.seq), 0) ELSE 0 END " +
			"FROM {p}outbox o WHERE o.seq > $1" + except + " AND ($2::bigint >> (o.lane & 63)::int) & 1 = 1 AND (NOT " + anyHeld +
			" OR NOT EXISTS (SELECT 1 FROM {p}outbox_holds h WHERE h.lane = o.lane" +
			" AND (h.parked_at IS NOT NULL OR h.due_at > (SELECT now FROM clock)))) ORDER BY o.seq LIMIT $3")
	}
	return texts{
		insertOne: fill(one), insertOneNotify: notify(one),
		insertMany: fill(many), insertManyNotify: notify(many),
		// The locks of two outboxes differ by the hash of the table's name.
		lockKeys:   fill("SELECT pg_advisory_xact_lock(lane # hashtextextended('{p}outbox', 0)) FROM unnest($1::bigint[]) AS lane"),
		lockLeases: fill("SELECT count(*) FROM (SELECT 1 FROM {p}outbox_leases ORDER BY bucket FOR UPDATE) AS l"),
		bury:       fill("DELETE FROM {p}outbox_relays WHERE owner = $1 OR expires_at <= " + now),
		join:       fill("INSERT INTO {p}outbox_relays (owner, expires_at) VALUES ($1, " + now + " + $2)"),
		share:      fill("SELECT " + share),
		take: fill("WITH clock AS MATERIALIZED (SELECT " + now + " AS now), free AS (SELECT bucket FROM {p}outbox_leases, clock" +
			" WHERE owner <> $1 AND expires_at <= now ORDER BY bucket" +
			" LIMIT greatest(0, " + share + " - (SELECT count(*) FROM {p}outbox_leases WHERE owner = $1)))" +
			" UPDATE {p}outbox_leases SET owner = $1, epoch = epoch + CASE WHEN owner = $1 THEN 0 ELSE 1 END," +
			" expires_at = (SELECT now FROM clock) + $2 WHERE owner = $1 OR bucket IN (SELECT bucket FROM free) RETURNING bucket, epoch"),
		give: fill("WITH " + held + " UPDATE {p}outbox_leases l SET owner = '', expires_at = 0 FROM held WHERE l.bucket = held.bucket"),
		dead: fill("DELETE FROM {p}outbox_relays WHERE owner = $1 AND NOT EXISTS (SELECT 1 FROM {p}outbox_leases WHERE owner = $1)"),
		// The planner knows nothing of the buckets and little of dead rows: it would read the whole table and sort it. This leaves it
		// the index, in order, up to the limit. It holds until the end of the transaction.
		inOrder: "SELECT set_config(name, 'off', true) FROM unnest(ARRAY['enable_seqscan', 'enable_bitmapscan', 'enable_sort'," +
			" 'enable_hashjoin', 'enable_mergejoin', 'jit']) AS name",
		backlog: fill("SELECT (SELECT count(*) FROM (SELECT 1 FROM {p}outbox WHERE seq > $1 ORDER BY seq LIMIT 100000) AS counted), " +
			"(SELECT count(*) FROM {p}outbox_holds WHERE parked_at IS NOT NULL), " +
			"COALESCE((SELECT " + now + " - stored_at FROM {p}outbox WHERE seq > $1 ORDER BY seq LIMIT 1), 0)"),
		fetch: fetch(""),
		// Most of what is left out is a stretch without a gap. NOT IN a subquery looks up each row in a table of hashes; with an array in its
		// place the server would search the whole of it.
		fetchExcept: fetch(" AND (o.seq < $4 OR o.seq > $5) AND o.seq NOT IN (SELECT unnest($6::bigint[]))"),
		remove: fill("WITH " + held +
			", gone AS (DELETE FROM {p}outbox o USING " + runs + " WHERE o.seq BETWEEN r.first AND r.last AND " + inMask + ")" +
			", free AS (DELETE FROM {p}outbox_holds h USING " + runs + " WHERE " + anyHeld + " AND h.seq BETWEEN r.first AND r.last AND " +
			inMask + ") SELECT " + mask),
		hold: fill("WITH " + held + ", kept AS (INSERT INTO {p}outbox_holds (lane, seq, attempts, error, due_at, parked_at)" +
			" SELECT lane, seq, attempts, error, " + now + " + delay, CASE WHEN parked THEN " + now + " END" +
			" FROM unnest($3::bigint[], $4::bigint[], $5::bigint[], $6::text[], $7::bigint[], $8::boolean[])" +
			" AS f (lane, seq, attempts, error, delay, parked) WHERE " + inMask +
			" ON CONFLICT (lane) DO UPDATE SET seq = excluded.seq, attempts = excluded.attempts," +
			" error = excluded.error, due_at = excluded.due_at, parked_at = excluded.parked_at) SELECT " + mask),
		next: fill("SELECT seq FROM {p}outbox WHERE seq > $1 ORDER BY seq LIMIT 1"),
		last: fill("SELECT COALESCE(pg_sequence_last_value(pg_get_serial_sequence('{p}outbox', 'seq')::regclass), 0)"),
		writers: fill("SELECT virtualtransaction FROM pg_locks WHERE locktype = 'relation' AND mode = 'RowExclusiveLock' AND granted " +
			"AND relation = '{p}outbox'::regclass AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"),
		claim:  fill("INSERT INTO {p}inbox (consumer, id, expires_at) VALUES ($1, $2, " + now + " + $3) ON CONFLICT DO NOTHING"),
		result: fill("SELECT result FROM {p}inbox WHERE consumer = $1 AND id = $2"),
		save:   fill("UPDATE {p}inbox SET result = $1 WHERE consumer = $2 AND id = $3"),
		forget: fill("DELETE FROM {p}inbox WHERE consumer = $1 AND id = $2"),
		listen: fill(`LISTEN "{channel}"`),
	}
}
