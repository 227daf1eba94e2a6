package sqlsaga

import (
	"strconv"
	"strings"
)

// Dialect is the SQL of one database. Use one of the functions that return it; the zero value is refused by New.
type Dialect struct {
	name     string
	now      string // the clock, in whole milliseconds since 1970
	insert   string // starts an INSERT that does nothing, with no row affected, when the id is taken
	ignore   string // ends it
	lock     string // ends a SELECT whose rows must not change before the transaction has ended
	skip     string // ends one that passes over what others have locked
	numbered bool   // placeholders are $1, $2 …
	// inProcess says that the database is no server.
	inProcess bool
	// parses says that the driver has a statement parsed each time it is run, unless it is prepared.
	parses bool
	// lean says that a statement rewrites the indexes of every column it sets, changed or not, and each page that it writes is dear.
	lean bool
	// guard and release keep the migrations of other processes away, where a transaction does not; {prefix} names the lock.
	guard, release string
	// migrations lists the statements of each version of the schema, the first one first. One that was once published is
	// never changed, and bears being run again after it was cut short.
	migrations [][]string
}

// text fills the table prefix and the clock into a statement.
func (d Dialect) text(prefix, query string) string {
	return d.number(strings.NewReplacer("{prefix}", prefix, "{now}", d.now, "{insert}", d.insert, "{ignore}", d.ignore,
		"{lock}", d.lock, "{skip}", d.skip).Replace(query))
}

// number turns the question marks of a statement, which has none in its literals, into what the database takes.
func (d Dialect) number(query string) string {
	if !d.numbered {
		return query
	}
	var b strings.Builder
	for n := 1; ; n++ {
		before, after, found := strings.Cut(query, "?")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		b.WriteString("$" + strconv.Itoa(n))
		query = after
	}
}

// marks is n placeholders, separated by commas.
func marks(n int) string { return strings.TrimSuffix(strings.Repeat("?, ", n), ", ") }

// page limits a query to n rows.
func page(n int) string { return " LIMIT " + strconv.Itoa(n) }
