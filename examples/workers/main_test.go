package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

// TestMain makes this test binary a worker when the crew starts it as one.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "-worker" {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

func TestKilledWorkersLoseNoJob(t *testing.T) {
	// A worker holds at most twice its Concurrency, and only what one held that was killed is given to another. That a busy
	// machine holds a living one up for as long as a lease is rare, so that another run is made.
	for try := 1; ; try++ {
		kills, rescued, repeats := killSome(t)
		require.Positive(t, rescued, "no worker was killed at work")
		if rescued+repeats <= 8*kills {
			return
		}
		require.Less(t, try, 3, "%d kills, and %d jobs in a later attempt or more than once", kills, rescued+repeats)
	}
}

func killSome(t *testing.T) (kills, rescued, repeats int) {
	t.Helper()
	var out bytes.Buffer
	p := plan{jobs: 3000, workers: 3, every: time.Second, patience: 5 * time.Minute}
	require.NoError(t, run(t.Context(), p, &out), &out)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	_, err := fmt.Sscanf(lines[len(lines)-1],
		"%d workers were killed; of 3000 jobs 3000 were done, %d of them in a later attempt, and %d more than once",
		&kills, &rescued, &repeats)
	require.NoError(t, err, &out)
	return kills, rescued, repeats
}

func TestALostJobIsAnError(t *testing.T) {
	c := &crew{done: map[string]int{}, want: 3, all: make(chan struct{})}
	c.note("0", 1)
	c.note("1", 2)
	c.note("1", 3)
	var out bytes.Buffer
	require.EqualError(t, c.report(&out, 7), "1 jobs are lost")
	require.Equal(t, "7 workers were killed; of 3 jobs 2 were done, 1 of them in a later attempt, and 1 more than once\n", out.String())
	c.note("2", 1)
	require.NoError(t, c.report(&out, 7))
	<-c.all
}
