package sqlitejournal_test

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/sqlite"
	"github.com/backstay-go/backstay/backend/sqlite/sqlitejournal"
	"github.com/backstay-go/backstay/cache"
)

const (
	// childFolder and childBase make a test function a process that is killed: the folder of its files, and the value
	// from which it counts.
	childFolder = "BACKSTAY_JOURNAL_CHILD"
	childBase   = "BACKSTAY_JOURNAL_BASE"

	writers, keysEach = 4, 8
	plainPending      = 10 // MaxPending of the process without a journal
)

// shelf is the source: a database of its own, which remembers every write in order.
type shelf struct{ db *sql.DB }

func openShelf(t *testing.T, dir string) shelf {
	// The source is not under test here: it need not be flushed with each batch.
	db, err := sqlite.Open(filepath.Join(dir, "source.db"), sqlite.Config{Synchronous: "normal"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	_, err = db.ExecContext(t.Context(), `CREATE TABLE IF NOT EXISTS history (n INTEGER PRIMARY KEY, key INTEGER, value INTEGER)`)
	require.NoError(t, err)
	return shelf{db}
}

// write takes some milliseconds, so that a kill may come before, at or after it.
func (s shelf) write(ctx context.Context, writes []cache.Write[int, int]) error {
	<-time.After(rand.N(4 * time.Millisecond))
	defer func() { <-time.After(rand.N(4 * time.Millisecond)) }()
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	for _, w := range writes {
		if _, err := tx.ExecContext(ctx, `INSERT INTO history (key, value) VALUES (?, ?)`, w.Key, w.Value); err != nil {
			return errors.Join(err, tx.Rollback())
		}
	}
	return tx.Commit()
}

func (s shelf) load(ctx context.Context, key int) (v int, err error) {
	err = s.db.QueryRowContext(ctx, `SELECT value FROM history WHERE key = ? ORDER BY n DESC LIMIT 1`, key).Scan(&v)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return v, err
}

// newest returns the last value of each key, having checked that no key ever went back.
func (s shelf) newest(t *testing.T) map[int]int {
	rows, err := s.db.QueryContext(t.Context(), `SELECT key, value FROM history ORDER BY n`)
	require.NoError(t, err)
	defer func() { require.NoError(t, rows.Close()) }()
	newest := map[int]int{}
	for rows.Next() {
		var k, v int
		require.NoError(t, rows.Scan(&k, &v))
		require.GreaterOrEqual(t, v, newest[k], "key %d went back", k)
		newest[k] = v
	}
	require.NoError(t, rows.Err())
	return newest
}

// TestDurableChild is the body of the process that TestKillsLoseNothingAccepted kills.
func TestDurableChild(t *testing.T) {
	dir := os.Getenv(childFolder)
	if dir == "" {
		return
	}
	j := openAt[int, int](t, filepath.Join(dir, "journal"))
	s := openShelf(t, dir)
	b, err := cache.OpenWriteBehind(t.Context(), j, s.load, s.write, cache.Config{}, cache.WriteBehindConfig{MaxBatch: 8, MaxDelay: 3 * time.Millisecond})
	require.NoError(t, err)
	count(t, b)
}

// TestPlainChild is the body of the process that TestKillsWithoutAJournalLoseWhatIsPending kills.
func TestPlainChild(t *testing.T) {
	dir := os.Getenv(childFolder)
	if dir == "" {
		return
	}
	s := openShelf(t, dir)
	count(t, cache.NewWriteBehind(s.load, s.write, cache.Config{}, cache.WriteBehindConfig{
		MaxBatch: 4, MaxDelay: 3 * time.Millisecond, MaxPending: plainPending,
	}))
}

// count writes ever greater values, each key by one goroutine, and says what it tries and what has been accepted.
func count(t *testing.T, b *cache.WriteBehind[int, int]) {
	base, err := strconv.Atoi(os.Getenv(childBase))
	require.NoError(t, err)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for v := base; ; v++ {
				k := w*keysEach + rand.IntN(keysEach)
				fmt.Printf("%d %d try\n", k, v)
				if err := b.Set(context.Background(), k, v); err != nil {
					fmt.Println(err) // which the parent does not understand
				}
				fmt.Printf("%d %d ok\n", k, v)
			}
		})
	}
	wg.Wait()
}

// life is what a child said before it was killed.
type life struct {
	tried, accepted map[int]int
	acks            int
}

// liveAndDie runs the test function name as a process, kills it some time after its first accepted write, and adds what
// it said to l. alive is called before the kill.
func (l *life) liveAndDie(t *testing.T, name, dir string, base int, alive func()) {
	cmd := exec.Command(os.Args[0], "-test.run=^"+name+"$")
	cmd.Env = append(os.Environ(), childFolder+"="+dir, fmt.Sprint(childBase, "=", base))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	stop := func() {
		if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			t.Error(err)
		}
	}
	defer func() { stop(); _ = cmd.Wait() }() // it says that it was killed
	before := l.acks
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		l.hear(t, lines.Text())
		if l.acks == before+1 {
			alive()
			before = -1
			defer time.AfterFunc(rand.N(60*time.Millisecond), stop).Stop()
		}
	}
	require.Equal(t, -1, before, "the child died before it had done anything")
}

func (l *life) hear(t *testing.T, line string) {
	var k, v int
	var what string
	if n, _ := fmt.Sscan(line, &k, &v, &what); n < 3 {
		t.Fatalf("the child said %q", line)
	}
	switch what {
	case "try":
		l.tried[k] = v
	case "ok":
		l.accepted[k] = v
		l.acks++
	}
}

// TestKillsLoseNothingAccepted kills a process at random moments, lets the next one take its journal over, and compares the
// source with what the dead one had accepted.
func TestKillsLoseNothingAccepted(t *testing.T) {
	kills := 15
	if os.Getenv("BACKSTAY_LONG") == "1" {
		kills = 500
	}
	dir := t.TempDir()
	s := openShelf(t, dir)
	path := filepath.Join(dir, "journal")
	l := life{tried: map[int]int{}, accepted: map[int]int{}}
	replayed := 0
	for kill := range kills {
		l.liveAndDie(t, "TestDurableChild", dir, 1_000_000*(kill+1), func() {
			_, err := sqlitejournal.Open[int, int](path)
			require.ErrorIs(t, err, sqlitejournal.ErrInUse)
		})
		if kill%3 == 2 {
			continue // the next child takes over, and is killed in its turn
		}
		j, err := sqlitejournal.Open[int, int](path)
		require.NoError(t, err, "the lock has died with its process")
		b, err := cache.OpenWriteBehind(t.Context(), j, s.load, s.write, cache.Config{}, cache.WriteBehindConfig{})
		require.NoError(t, err)
		replayed += b.Stats().Pending
		require.NoError(t, b.Close(t.Context()))
		pending, _ := replay(t, j)
		require.Empty(t, pending)
		require.NoError(t, j.Close())
		newest := s.newest(t)
		for k, accepted := range l.accepted {
			require.GreaterOrEqual(t, newest[k], accepted, "key %d: an accepted write is lost", k)
			require.LessOrEqual(t, newest[k], l.tried[k])
		}
	}
	require.NotZero(t, replayed, "no kill left anything in the journal")
	t.Logf("%d kills, %d writes accepted, %d taken over from the dead", kills, l.acks, replayed)
}

// Without a journal a kill loses accepted writes, of at most MaxPending keys.
func TestKillsWithoutAJournalLoseWhatIsPending(t *testing.T) {
	lost := 0
	for range 5 {
		dir := t.TempDir()
		l := life{tried: map[int]int{}, accepted: map[int]int{}}
		l.liveAndDie(t, "TestPlainChild", dir, 1, func() {})
		newest := openShelf(t, dir).newest(t)
		behind := 0
		for k, accepted := range l.accepted {
			if newest[k] < accepted {
				behind++
			}
		}
		require.LessOrEqual(t, behind, plainPending)
		lost += behind
	}
	require.NotZero(t, lost, "the test shows no loss, so it bounds none")
	t.Logf("%d keys had lost their last writes after 5 kills", lost)
}
