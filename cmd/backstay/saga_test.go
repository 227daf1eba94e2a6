package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sqlsaga"
)

// purchase is the state of the service's sagas.
type purchase struct {
	Shop     string
	Reserved int
}

// service is a service whose sagas are looked at: releasing what it has reserved fails until it is mended.
type service struct {
	store  *sqlsaga.Store
	def    *saga.Definition[purchase]
	mended atomic.Bool
}

var errWarehouse = errors.New("warehouse: no such reservation \x1b[2J")

func newService(t *testing.T, d database) *service {
	t.Helper()
	e, err := find(d.url)
	require.NoError(t, err)
	s := &service{}
	s.store, err = sqlsaga.New(d.db, e.sagas())
	require.NoError(t, err)
	require.NoError(t, s.store.Migrate(t.Context()))
	reserve := saga.Step[purchase]{
		Name: "reserve", Do: func(_ context.Context, p *purchase) error { p.Reserved++; return nil },
		Undo: func(_ context.Context, p *purchase) error {
			if !s.mended.Load() {
				return errWarehouse
			}
			p.Reserved--
			return nil
		},
		UndoRetry: saga.Retry{MaxAttempts: 3, Initial: time.Millisecond},
	}
	charge := saga.Step[purchase]{Name: "charge", Do: func(ctx context.Context, _ *purchase) error {
		if a, _ := saga.Current(ctx); strings.HasPrefix(a.ID, "good") {
			return nil
		}
		return saga.Permanent(errors.New("the card is blocked"))
	}}
	s.def, err = saga.Define("purchase", 2, reserve, charge)
	require.NoError(t, err)
	return s
}

// work runs the service while fn does something.
func (s *service) work(t *testing.T, fn func(r *saga.Runner)) {
	t.Helper()
	r, err := saga.NewRunner(s.store, saga.Config{PollMax: 20 * time.Millisecond, Lease: 5 * time.Second, Concurrency: 4}, s.def)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	stopped := make(chan error, 1)
	go func() { stopped <- r.Run(ctx) }()
	defer func() { cancel(); require.NoError(t, <-stopped) }()
	fn(r)
}

// run starts sagas and waits until they end or are stuck.
func (s *service) run(t *testing.T, ids ...string) {
	t.Helper()
	s.work(t, func(r *saga.Runner) {
		for _, id := range ids {
			require.NoError(t, saga.Start(t.Context(), r, s.def, id, purchase{Shop: "Zürich"}))
		}
		for _, id := range ids {
			if err := s.end(t, r, id); strings.HasPrefix(id, "good") {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, saga.ErrStuck)
			}
		}
	})
}

func (s *service) end(t *testing.T, r *saga.Runner, id string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_, err := saga.Wait(ctx, r, s.def, id)
	return err
}

var (
	nodes   = regexp.MustCompile(`[A-Za-z0-9_.-]+-\d+-[A-Z2-7]{8}`)
	ages    = regexp.MustCompile(`(?m)(\d+m)?\d+(\.\d+)?m?s$`)
	ageJSON = regexp.MustCompile(`"oldest_age_ms": \d+`)
)

// steady takes out what differs from run to run.
func (s *session) steady() {
	text := ageJSON.ReplaceAllString(ages.ReplaceAllString(nodes.ReplaceAllString(s.log.String(), "NODE"), "AGE"), `"oldest_age_ms": 0`)
	s.log.Reset()
	s.log.WriteString(text)
}

const trickyID = "b\x1b[2J\u202e 2\nstuck"

func TestLookingAtSagas(t *testing.T) {
	onEach(t, func(t *testing.T, d database) {
		svc := newService(t, d)
		s := &session{t: t, url: d.url}
		s.run("", "saga", "list")
		s.run("", "saga", "list", "-json", "-status", "all")
		s.run("", "saga", "stats")
		s.run("", "saga", "stats", "-json")
		svc.run(t, "a1", trickyID, "good1")
		s.run("", "saga", "list")
		s.run("", "saga", "list", "-limit", "1")
		s.run("", "saga", "list", "-after", "a1", "-json")
		s.run("", "saga", "list", "-status", "completed, running")
		s.run("", "saga", "list", "-definition", "other")
		s.run("", "saga", "show", "a1")
		s.run("", "saga", "show", "good1", "-bytes", "5")
		s.run("", "saga", "show", "good1", "-json")
		s.run("", "saga", "show", "none")
		s.run("", "saga", "stats")
		s.run("", "saga", "stats", "-json")
		for _, c := range s.log.Bytes() {
			require.True(t, c == '\n' || c >= 0x20 && c != 0x7f, "a control character reaches the terminal")
		}
		require.NotContains(t, s.log.String(), "\u202e")
		s.steady()
		s.golden("sagas_looking.golden")
	})
}

// Sagas get stuck for real, since an Undo fails for good; a person finds and repairs them by command, without the service's code, and
// the service brings them to their end.
func TestRepairingSagas(t *testing.T) {
	onEach(t, func(t *testing.T, d database) {
		svc := newService(t, d)
		s := &session{t: t, url: d.url}
		svc.run(t, "abort", "done", "good", "retry", "skip")
		require.Zero(t, s.run("", "saga", "list"))
		require.Equal(t, codeNotConfirmed, s.run("", "saga", "skip", "skip"))
		require.Equal(t, codeNotConfirmed, s.run("no\n", "saga", "abort", "abort", "done"))
		require.Equal(t, codeNotThere, s.run("yes\n", "saga", "skip", "skip", "good", "none"))
		require.Equal(t, codeNotThere, s.run("", "saga", "skip", "-yes", "skip"))
		require.Zero(t, s.run("", "saga", "done", "-yes", "done", "-json"))
		require.Zero(t, s.run("yes\n", "saga", "abort", "abort"))
		require.Zero(t, s.run("", "saga", "show", "skip"))
		svc.mended.Store(true)
		require.Zero(t, s.run("", "saga", "retry", "-all", "-definition", "other"))
		require.Zero(t, s.run("", "saga", "retry", "retry"))
		svc.work(t, func(r *saga.Runner) {
			for _, id := range []string{"done", "retry", "skip"} {
				require.ErrorIs(t, svc.end(t, r, id), saga.ErrCompensated, id)
			}
			require.ErrorIs(t, svc.end(t, r, "abort"), saga.ErrAborted)
		})
		require.Zero(t, s.run("", "saga", "list"))
		require.Zero(t, s.run("", "saga", "list", "-status", "all"))
		reserved := map[string]string{"retry": `"Reserved":0`, "skip": `"Reserved":1`, "done": `"Reserved":1`}
		for _, id := range []string{"retry", "skip", "done"} {
			in, _, err := svc.store.Load(t.Context(), id)
			require.NoError(t, err)
			require.Contains(t, strings.ReplaceAll(string(in.State), " ", ""), reserved[id], id)
			require.Zero(t, s.run("", "saga", "show", id))
		}
		s.steady()
		s.golden("sagas_repairing.golden")
	})
}

// Many stuck sagas are repaired with one command.
func TestRepairingManySagas(t *testing.T) {
	d := sqliteDatabase(t)
	svc := newService(t, d)
	ids := make([]string, page+7)
	for i := range ids {
		ids[i] = fmt.Sprintf("id%03d", i)
	}
	svc.run(t, ids...)
	s := &session{t: t, url: d.url}
	require.Zero(t, s.run("yes\n", "saga", "abort", "-all"))
	require.Contains(t, s.log.String(), "and 187 more")
	require.Contains(t, s.log.String(), "207 sagas aborted")
	require.Zero(t, s.run("", "saga", "list"))
	require.Contains(t, s.log.String(), "no saga is stuck")
}

// What is wrong with a command line is said before any database is asked.
func TestSagaUsage(t *testing.T) {
	s := &session{t: t}
	for _, args := range [][]string{
		{"saga"}, {"saga", "help"}, {"saga", "what"}, {"saga", "list"}, {"saga", "list", "-h"}, {"saga", "retry", "-h"}, {"saga", "skip", "-h"},
		{"saga", "list", "-db", "oracle:x"}, {"saga", "list", "-db", "sqlite:x", "-prefix", "a-b"}, {"saga", "show", "-db", "sqlite:x", ""},
		{"saga", "list", "-db", "sqlite:no/such/file.db"},
	} {
		s.run("", args...)
	}
	s.golden("sagas_usage.golden")
}

// Errors that need a database say what to do.
func TestSagaWrongUse(t *testing.T) {
	d := sqliteDatabase(t)
	s := &session{t: t, url: d.url}
	require.Equal(t, codeFailed, s.run("", "saga", "list"), "there are no sagas in this database")
	newService(t, d)
	for _, args := range [][]string{
		{"list", "x"}, {"list", "-status", "broken"}, {"list", "-limit", "0"}, {"show"}, {"show", "a", "b"}, {"skip"}, {"retry", "-all", "x"}, {"stats", "x"},
	} {
		require.Equal(t, codeUsage, s.run("", append([]string{"saga"}, args...)...))
	}
	require.Equal(t, codeNotThere, s.run("", "saga", "retry", "none"))
	s.golden("sagas_wrong.golden")
}

// Trouble with the database is not taken for a saga that somebody else has repaired.
func TestTroubleDuringARepair(t *testing.T) {
	d := sqliteDatabase(t)
	svc := newService(t, d)
	svc.run(t, "a", "b")
	_, err := d.db.ExecContext(t.Context(), `CREATE TRIGGER no BEFORE UPDATE ON backstay_sagas WHEN old.id = 'b' BEGIN SELECT RAISE(ABORT, 'disk trouble'); END`)
	require.NoError(t, err)
	s := &session{t: t, url: d.url}
	require.Equal(t, codeFailed, s.run("", "saga", "retry", "a", "b", "none"))
	require.Contains(t, s.log.String(), "1 saga retried")
	require.Contains(t, s.log.String(), "1 of 2 were retried before this")
	require.Contains(t, s.log.String(), "disk trouble")
	in, _, err := svc.store.Load(t.Context(), "a")
	require.NoError(t, err)
	require.Equal(t, saga.Compensating, in.Status)
}
