package test

import (
	"database/sql"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/postgres/pgoutbox"
	"github.com/backstay-go/backstay/backend/postgres/pgsaga"
	"github.com/backstay-go/backstay/backend/redis/rediscache"
	"github.com/backstay-go/backstay/backend/sqlite/sqlitejournal"
	"github.com/backstay-go/backstay/cache"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/sqloutbox"
	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/memsaga"
	"github.com/backstay-go/backstay/saga/sqlsaga"
)

// A store is one column of a table: its type, which may be nil for none, its Config, its package, and what the transaction of a step is.
type store struct {
	title       string
	kind        reflect.Type
	config      reflect.Type
	dir         string
	transaction reflect.Type
}

// A promise is one row: what a store says to it, and the interface that it is judged by, if any, by name.
type promise struct {
	title, judgedBy string
	say             func(t *testing.T, s store) string
}

// implements is a row that says yes for the types that have the methods of an interface.
func implements[I any](title string) promise {
	of := reflect.TypeFor[I]()
	name, _, _ := strings.Cut(of.Name(), "[")
	return promise{title, name, func(_ *testing.T, s store) string { return yesNo(s.kind != nil && s.kind.Implements(of)) }}
}

func hasMethod(title, name string) promise {
	return promise{title: title, say: func(_ *testing.T, s store) string {
		if s.kind == nil {
			return "no"
		}
		_, has := s.kind.MethodByName(name)
		return yesNo(has)
	}}
}

func hasOption(title, field string) promise {
	return promise{title: title, say: func(_ *testing.T, s store) string {
		if s.config == nil {
			return "no"
		}
		_, has := s.config.FieldByName(field)
		return yesNo(has)
	}}
}

// databases are those that a store has a dialect for; one without dialects is made for one.
func databases(otherwise string) promise {
	return promise{title: "databases", say: func(t *testing.T, s store) string {
		if names := dialects(t, s.dir); len(names) > 0 {
			return strings.Join(names, ", ")
		}
		return otherwise
	}}
}

// dialects are the functions of a package that return its Dialect.
func dialects(t *testing.T, dir string) (names []string) {
	t.Helper()
	eachDecl(t, dir, func(d ast.Decl) {
		fn, ok := d.(*ast.FuncDecl)
		if ok && fn.Recv == nil && ast.IsExported(fn.Name.Name) && fn.Type.Results != nil && typeName(fn.Type.Results.List[0].Type) == "Dialect" {
			names = append(names, fn.Name.Name)
		}
	})
	return names
}

func eachDecl(t *testing.T, dir string, do func(ast.Decl)) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("..", dir, "*.go"))
	require.NoError(t, err)
	require.NotEmpty(t, paths, dir)
	for _, path := range paths {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		require.NoError(t, err)
		for _, d := range file.Decls {
			do(d)
		}
	}
}

func outboxStores() []store {
	return []store{
		{title: "`sqloutbox`", kind: reflect.TypeFor[*sqloutbox.Store](), config: reflect.TypeFor[sqloutbox.Config](), dir: "outbox/sqloutbox"},
		{title: "`pgoutbox`", kind: reflect.TypeFor[*pgoutbox.Store](), config: reflect.TypeFor[pgoutbox.Config](), dir: "backend/postgres/pgoutbox"},
	}
}

func outboxPromises() []promise {
	return []promise{
		databases("PostgreSQL"),
		implements[outbox.Store[*sql.Tx]]("messages in a `*sql.Tx`"),
		implements[outbox.Store[pgx.Tx]]("messages in a `pgx.Tx`"),
		implements[outbox.Queue]("relays share the work, and are fenced"),
		implements[outbox.Prefetcher]("a relay reads the next batch while it settles one"),
		implements[outbox.Inspector]("parked messages are listed, requeued, skipped, edited"),
		implements[outbox.InboxStore[*sql.Tx]]("inbox in a `*sql.Tx`"),
		implements[outbox.InboxStore[pgx.Tx]]("inbox in a `pgx.Tx`"),
		hasMethod("a commit in any process wakes the relay (`Listen`)", "Listen"),
		hasOption("`Publish` can lock the key (`KeyLock`)", "KeyLock"),
		hasOption("the inbox can be kept in daily partitions, dropped whole (`InboxByDay`)", "InboxByDay"),
		hasMethod("repeats a transaction that lost a deadlock (`RetryTx`)", "RetryTx"),
	}
}

func sagaStores() []store {
	return []store{
		{title: "`memsaga`", kind: reflect.TypeFor[*memsaga.Store](), dir: "saga/memsaga"},
		{title: "`sqlsaga`", kind: reflect.TypeFor[*sqlsaga.Store](), dir: "saga/sqlsaga", transaction: reflect.TypeOf(sqlsaga.Tx).Out(0)},
		{title: "`pgsaga`", kind: reflect.TypeFor[*pgsaga.Store](), config: reflect.TypeFor[pgsaga.Config](), dir: "backend/postgres/pgsaga", transaction: reflect.TypeOf(pgsaga.Tx).Out(0)},
	}
}

func sagaPromises() []promise {
	return []promise{
		{title: "databases", say: func(t *testing.T, s store) string {
			if s.transaction == nil {
				return "none: memory of this process"
			}
			return databases("PostgreSQL").say(t, s)
		}},
		implements[saga.Store]("no instance is lost while the store is there"),
		hasMethod("survives the end of every process, in tables of the database", "Migrate"),
		implements[saga.TxStore]("steps in the store's own transaction (`InTx`)"),
		{title: "which a step finds as", say: func(_ *testing.T, s store) string {
			if s.transaction == nil {
				return "–"
			}
			return "`" + s.transaction.String() + "`"
		}},
		implements[saga.Purger]("what has ended is deleted after a while (`Config.Retention`)"),
		hasMethod("what another process leaves due wakes the runner (`Listen`)", "Listen"),
		hasMethod("counts by definition and status, as `backstay saga stats` shows", "Counts"),
	}
}

func cacheStores() []store {
	return []store{
		{title: "memory alone"},
		{title: "`rediscache`, with rueidis or go-redis", kind: reflect.TypeFor[*rediscache.Store[string, int]]()},
		{title: "`sqlitejournal`", kind: reflect.TypeFor[*sqlitejournal.Journal[string, int]]()},
	}
}

func cachePromises() []promise {
	return []promise{
		implements[cache.Store[string, int]]("entries are shared between processes: one load for all, and a Set or Delete beats an older load of any"),
		implements[cache.Watcher[string]]("the memories of other processes hear of changes (`Watch`)"),
		implements[cache.Journal[string, int]]("keeps what write-behind has accepted through a kill"),
	}
}

// storeTables are the generated tables of docs/guarantees.md but for the drivers' of pub-sub.
var storeTables = []struct {
	name     string
	stores   func() []store
	promises func() []promise
	// besides are the interfaces of the package that no store is asked for.
	besides string
}{
	{"outbox", outboxStores, outboxPromises, ""},
	{"saga", sagaStores, sagaPromises, "Member Part"},
	{"cache", cacheStores, cachePromises, "Lease"},
}

// TestStoreTables compares the tables of stores in docs/guarantees.md with the interfaces, methods and options that the stores have.
func TestStoreTables(t *testing.T) {
	for _, table := range storeTables {
		begin := "<!-- " + table.name + " stores: go test ./test -run TestStoreTables -update -->\n"
		generated(t, "../docs/guarantees.md", begin, "<!-- "+table.name+" stores: end -->\n", storeTable(t, table.stores(), table.promises()))
	}
}

func storeTable(t *testing.T, stores []store, promises []promise) string {
	t.Helper()
	var b strings.Builder
	row := func(title string, cell func(store) string) {
		b.WriteString("| " + title + " |")
		for _, s := range stores {
			b.WriteString(" " + cell(s) + " |")
		}
		b.WriteString("\n")
	}
	row("guarantee", func(s store) string { return s.title })
	row("---", func(store) string { return "---" })
	for _, p := range promises {
		row(p.title, func(s store) string { return p.say(t, s) })
	}
	return b.String()
}

// TestTheStoreTablesLeaveNothingOut looks for each interface of the packages among the rows, and for stores that say something else to it:
// a row to which all say the same, but for what makes a store one, would hide that it does not look.
func TestTheStoreTablesLeaveNothingOut(t *testing.T) {
	for _, table := range storeTables {
		judged := map[string]bool{}
		for besides := range strings.FieldsSeq(table.besides) {
			judged[besides] = true
		}
		for _, p := range table.promises() {
			judged[p.judgedBy] = true
			require.NotEqual(t, "yes", p.say(t, store{dir: "docs/../retry"}), "what is no store says yes to %q", p.title)
		}
		eachDecl(t, table.name, func(d ast.Decl) {
			for _, name := range interfaces(d) {
				require.True(t, judged[name], "the table of %s does not say %s", table.name, name)
			}
		})
	}
}

// interfaces are the exported interfaces of a declaration.
func interfaces(d ast.Decl) (names []string) {
	types, ok := d.(*ast.GenDecl)
	if !ok {
		return nil
	}
	for _, spec := range types.Specs {
		if def, ok := spec.(*ast.TypeSpec); ok && ast.IsExported(def.Name.Name) {
			if _, ok := def.Type.(*ast.InterfaceType); ok {
				names = append(names, def.Name.Name)
			}
		}
	}
	return names
}
