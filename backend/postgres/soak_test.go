package postgres_test

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/postgres/internal/pgtest"
	"github.com/backstay-go/backstay/backend/postgres/pgoutbox"
)

// soak is how long the soak goes on, and how many kills it has at least.
func soak(t testing.TB) (time.Duration, int) {
	t.Helper()
	if text := os.Getenv("BACKSTAY_SOAK"); text != "" {
		d, err := time.ParseDuration(text)
		require.NoError(t, err)
		return d, 20
	}
	if os.Getenv("BACKSTAY_LONG") == "1" {
		return 10 * time.Minute, 400
	}
	return 30 * time.Second, 20
}

// For a while relays die by SIGKILL and connections are cut, of relays and writers, at random. What was confirmed to a writer has arrived,
// what was rolled back has not, the order of each key is kept, and deaths repeat no more than a batch each.
func TestSoakUnderKillsAndCuts(t *testing.T) {
	t.Parallel()
	length, least := soak(t)
	s, _, url := newDatabase(t, pgoutbox.Config{})
	relayProxy, writerProxy := pgtest.NewProxy(t, url), pgtest.NewProxy(t, url)
	// A commit in doubt may still come, after the writer has gone on with its key: the lock is what keeps their order.
	writing, err := pgoutbox.New(pgtest.Pool(t, writerProxy.URL()), pgoutbox.Config{KeyLock: true})
	require.NoError(t, err)
	dir := t.TempDir()
	p := openFile(t, dir)
	relays := make([]*exec.Cmd, 3)
	kinds := []string{"pgx", "sql", "pgx"}
	for i, kind := range kinds {
		relays[i] = child(t, relayProxy.URL(), dir, kind, "never")
	}
	w := startWriters(writing, 10)
	defer w.end()

	kills, cuts, began := 0, 0, time.Now()
	pause := time.NewTicker(length / time.Duration(2*least))
	defer pause.Stop()
	for kills < least || time.Since(began) < length {
		<-pause.C
		switch rand.IntN(4) {
		case 0:
			relayProxy.Cut()
			cuts++
		case 1:
			writerProxy.Cut()
			cuts++
		default:
			i := rand.IntN(len(relays))
			kill(relays[i])
			relays[i] = child(t, relayProxy.URL(), dir, kinds[i], "never")
			kills++
		}
	}
	w.end()
	empty(t, s)
	for _, cmd := range relays {
		kill(cmd)
	}
	msgs := p.messages(t)
	w.check(t, msgs)
	doubtful := 0
	w.doubtful.Range(func(any, any) bool { doubtful++; return true })
	repeated := len(msgs) - distinct(msgs)
	t.Logf("%v, %d kills, %d cuts: %d committed, %d in doubt, %d published, %d of them again",
		time.Since(began).Round(time.Second), kills, cuts, w.count.Load(), doubtful, len(msgs), repeated)
	require.Greater(t, w.count.Load(), int64(least), "there was something to lose")
	require.LessOrEqual(t, repeated, (kills+3*cuts)*quick("").Batch, "repetitions")
}
