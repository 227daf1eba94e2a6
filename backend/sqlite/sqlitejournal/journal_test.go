package sqlitejournal_test

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/backstay-go/backstay/backend/sqlite"
	"github.com/backstay-go/backstay/backend/sqlite/sqlitejournal"
	"github.com/backstay-go/backstay/cache"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type write = cache.Write[string, int]

func openAt[K comparable, V any](t testing.TB, path string, opts ...sqlitejournal.Option[K, V]) *sqlitejournal.Journal[K, V] {
	j, err := sqlitejournal.Open(path, opts...)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, j.Close()) })
	return j
}

func replay[K comparable, V any](t *testing.T, j *sqlitejournal.Journal[K, V]) ([]cache.Write[K, V], uint64) {
	pending, last, err := j.Replay(t.Context())
	require.NoError(t, err)
	return pending, last
}

func TestAJournalKeepsTheNewestWriteOfEachKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a b?#%.journal")
	j, err := sqlitejournal.Open[string, int](path)
	require.NoError(t, err)
	pending, last := replay(t, j)
	require.Empty(t, pending)
	require.Zero(t, last)
	require.NoError(t, j.Commit(t.Context(), []write{{Key: "a", Value: 1, Seq: 1}, {Key: "", Seq: 2}, {Key: "b", Value: 1, Seq: 3}}, nil))
	require.NoError(t, j.Commit(t.Context(), []write{{Key: "a", Value: 2, Seq: 4}, {Key: "a", Value: 3, Seq: 5}, {Key: "b", Deleted: true, Seq: 6}}, nil))
	require.NoError(t, j.Close())
	require.FileExists(t, path)

	again := openAt[string, int](t, path)
	pending, last = replay(t, again)
	require.Equal(t, []write{{Key: "", Seq: 2}, {Key: "a", Value: 3, Seq: 5}, {Key: "b", Deleted: true, Seq: 6}}, pending)
	require.EqualValues(t, 6, last)
}

func TestARemovalIsForOneSeq(t *testing.T) {
	j := openAt[string, int](t, filepath.Join(t.TempDir(), "j"))
	require.NoError(t, j.Commit(t.Context(), []write{{Key: "a", Value: 1, Seq: 1}, {Key: "b", Value: 1, Seq: 2}}, nil))
	older := []write{{Key: "a", Value: 1, Seq: 1}, {Key: "b", Seq: 2}, {Key: "c", Seq: 7}}
	require.NoError(t, j.Commit(t.Context(), []write{{Key: "a", Value: 2, Seq: 3}}, older))
	pending, _ := replay(t, j)
	require.Equal(t, []write{{Key: "a", Value: 2, Seq: 3}}, pending)
	require.NoError(t, j.Commit(t.Context(), nil, pending))
	pending, last := replay(t, j)
	require.Empty(t, pending)
	require.EqualValues(t, 3, last, "the Seq goes on growing")
}

func TestACommitIsWholeOrNotAtAll(t *testing.T) {
	j := openAt[string, float64](t, filepath.Join(t.TempDir(), "j"))
	type w = cache.Write[string, float64]
	require.NoError(t, j.Commit(t.Context(), []w{{Key: "a", Value: 1, Seq: 1}}, nil))
	err := j.Commit(t.Context(), []w{{Key: "b", Value: 1, Seq: 2}, {Key: "c", Value: math.NaN(), Seq: 3}}, []w{{Key: "a", Seq: 1}})
	require.ErrorContains(t, err, "value of key c")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, j.Commit(ctx, []w{{Key: "b", Value: 1, Seq: 4}}, []w{{Key: "a", Seq: 1}}), context.Canceled)
	pending, last := replay(t, j)
	require.Equal(t, []w{{Key: "a", Value: 1, Seq: 1}}, pending)
	require.EqualValues(t, 1, last)
	require.NoError(t, j.Commit(t.Context(), []w{{Key: "b", Value: 1, Seq: 5}}, nil), "the journal goes on")
}

func TestAKeyThatItsCodecChangesIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	j := openAt[string, int](t, path)
	err := j.Commit(t.Context(), []write{{Key: "\xff", Seq: 1}}, nil)
	require.ErrorContains(t, err, "does not survive its codec")
	pending, _ := replay(t, j)
	require.Empty(t, pending)
}

func TestCodecsCarryAnyBytes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	raw := sqlitejournal.Codec[string]{
		Encode: func(s string) ([]byte, error) { return []byte(s), nil },
		Decode: func(b []byte) (string, error) { return string(b), nil },
	}
	bytes := sqlitejournal.Codec[[]byte]{
		Encode: func(b []byte) ([]byte, error) { return b, nil },
		Decode: func(b []byte) ([]byte, error) { return b, nil },
	}
	type w = cache.Write[string, []byte]
	j := openAt(t, path, sqlitejournal.WithKeys[string, []byte](raw), sqlitejournal.WithValues[string](bytes))
	add := []w{{Key: "\xff\x00", Value: []byte{0, 1}, Seq: 1}, {Key: "", Value: nil, Seq: 2}, {Key: "gone", Deleted: true, Seq: 3}}
	require.NoError(t, j.Commit(t.Context(), add, nil))
	pending, _ := replay(t, j)
	require.Equal(t, add, pending)
	require.Panics(t, func() {
		_, _ = sqlitejournal.Open(path, sqlitejournal.WithKeys[string, int](sqlitejournal.Codec[string]{Encode: raw.Encode}))
	})
}

func TestWhatCannotBeDecodedIsNotLeftOut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	j, err := sqlitejournal.Open[string, string](path)
	require.NoError(t, err)
	require.NoError(t, j.Commit(t.Context(), []cache.Write[string, string]{{Key: "k", Value: "text", Seq: 1}}, nil))
	require.NoError(t, j.Close())
	_, _, err = openAt[string, int](t, path).Replay(t.Context())
	require.ErrorContains(t, err, `value of key "\"k\""`)
}

func TestAJournalHasOneOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "users.journal")
	first, err := sqlitejournal.Open[string, int](path)
	require.NoError(t, err)
	start := time.Now()
	_, err = sqlitejournal.Open[string, int](path)
	require.ErrorIs(t, err, sqlitejournal.ErrInUse)
	require.EqualError(t, err, `sqlitejournal: open "`+path+`": in use by another process`)
	require.Less(t, time.Since(start), 20*time.Second, "it does not wait the 30 seconds of a busy database")
	require.NoError(t, first.Commit(t.Context(), []write{{Key: "k", Seq: 1}}, nil), "the owner does not notice")
	require.NoError(t, first.Close())
	openAt[string, int](t, path)
}

func TestEveryCommitIsFlushed(t *testing.T) {
	j := openAt[string, int](t, filepath.Join(t.TempDir(), "j"))
	for pragma, want := range map[string]any{"journal_mode": "wal", "synchronous": int64(2), "locking_mode": "exclusive"} {
		require.Equal(t, want, j.Pragma(t, pragma), pragma)
	}
}

func TestOpenRefusesWhatIsNoJournal(t *testing.T) {
	for _, path := range []string{"", ":memory:", "file:x", "a\x00b", t.TempDir(), filepath.Join(t.TempDir(), "no", "folder")} {
		_, err := sqlitejournal.Open[string, int](path)
		require.ErrorContains(t, err, "sqlitejournal: open", path)
	}
	text := filepath.Join(t.TempDir(), "text")
	require.NoError(t, os.WriteFile(text, []byte("this is not a database, but it is long enough to be read as one"), 0o600))
	_, err := sqlitejournal.Open[string, int](text)
	require.ErrorContains(t, err, "not a database")

	newer := filepath.Join(t.TempDir(), "newer")
	db, err := sqlite.Open(newer, sqlite.Config{})
	require.NoError(t, err)
	_, err = db.ExecContext(t.Context(), "PRAGMA user_version = 2")
	require.NoError(t, errors.Join(err, db.Close()))
	_, err = sqlitejournal.Open[string, int](newer)
	require.ErrorContains(t, err, "the file has format 2 and this program knows 1")
}
