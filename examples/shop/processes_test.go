package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// processesOf are the command lines of the processes of the shop with that data folder, those that are no more than an entry
// in the list not among them.
func processesOf(t *testing.T, data string) (found []string) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	self := false
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has just ended
		}
		self = self || filepath.Base(filepath.Dir(file)) == strconv.Itoa(os.Getpid())
		if args := strings.Split(string(text), "\x00"); len(args) > 1 && args[1] == roleFlag && strings.Contains(string(text), data) {
			found = append(found, strings.Join(args, " "))
		}
	}
	require.True(t, self, "the list of processes cannot be read")
	return found
}

// A siege is a run of the shop as processes, under fire.
type siege struct {
	seed   int
	orders int
	rate   int
	args   []string
}

// hold runs it and requires that all of it holds, and that nothing of it is left.
func (g siege) hold(t *testing.T) (result, string) {
	t.Helper()
	dir := t.TempDir()
	var stdout bytes.Buffer
	stderr := newLines()
	args := append([]string{"-processes", "-json", "-data", dir, "-seed", strconv.Itoa(g.seed), "-orders", strconv.Itoa(g.orders), "-rate", strconv.Itoa(g.rate)}, g.args...)
	code := run(t.Context(), args, &stdout, stderr)
	log := stderr.all()
	r := resultIn(t, &stdout, bytes.NewBufferString(log))
	for _, i := range r.Invariants {
		require.True(t, i.OK, "seed %d: %s: %s\n%s", g.seed, i.Name, i.Detail, log)
	}
	requireProof(t, r)
	require.Zero(t, code, "%s", log)
	require.Equal(t, g.orders, r.Orders)
	require.Empty(t, processesOf(t, dir))
	kills := strings.Count(log, " s  kill ") // a machine that starts processes slowly has fewer
	require.Positive(t, kills, log)
	t.Logf("seed %d: %d kills, %d of %d accepted, %d confirmed, %d redeliveries, %d duplicates, %.1f s",
		g.seed, kills, r.Accepted, r.Orders, r.Confirmed, r.Redeliveries, r.DuplicatesSuppressed, r.Seconds)
	return r, log
}

// Services are killed every two seconds, paused, cut off, slowed and stalled, and nothing is lost and nothing happens twice.
func TestProcessesUnderFireLoseNothing(t *testing.T) {
	seeds, orders, rate := 3, 600, 20
	switch {
	case os.Getenv("BACKSTAY_LONG") == "1":
		seeds, orders = 20, 1200
	case raceDetector:
		seeds, orders, rate = 1, 30, 1 // twelve processes that are ten times as slow
	}
	for seed := range seeds {
		r, log := siege{seed: seed + 1, orders: orders, rate: rate}.hold(t)
		require.Positive(t, r.Redeliveries)
		require.Positive(t, r.Retries)
		for _, ill := range []string{"kill ", "pause ", "cut ", "slow ", "stall "} {
			require.Contains(t, log, " s  "+ill)
		}
	}
}

// The process that has started all others dies, while they are at work and some are paused: none outlives it, and the next
// one goes on with what they have left.
func TestNoProcessOutlivesTheOneThatStartedIt(t *testing.T) {
	dir := t.TempDir()
	orders, rate := 80, 10
	if raceDetector {
		orders, rate = 20, 1
	}
	args := []string{"-processes", "-data", dir, "-orders", strconv.Itoa(orders), "-rate", strconv.Itoa(rate), "-json"}
	stderr := newLines()
	cmd := command(t, nil, nil, args)
	cmd.Stdout, cmd.Stderr = io.Discard, stderr
	require.NoError(t, cmd.Start())
	stderr.await("pause ")
	require.NotEmpty(t, processesOf(t, dir))
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	require.Eventually(t, func() bool { return len(processesOf(t, dir)) == 0 }, wait, tick)
	var stdout bytes.Buffer
	again := newLines()
	code := run(t.Context(), args, &stdout, again)
	r := resultIn(t, &stdout, bytes.NewBufferString(again.all()))
	requireProof(t, r)
	require.Zero(t, code, again.all())
	require.Equal(t, orders, r.Orders)
	require.Empty(t, processesOf(t, dir))
}

func TestAnInterruptedFleetDrainsAndReports(t *testing.T) {
	dir := t.TempDir()
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	var stdout bytes.Buffer
	stderr := newLines()
	done := make(chan int, 1)
	go func() {
		done <- run(ctx, []string{"-processes", "-data", dir, "-orders", "5000", "-rate", "10", "-json"}, &stdout, stderr)
	}()
	stderr.await("pause ")
	interrupt()
	require.Zero(t, <-done)
	r := resultIn(t, &stdout, new(bytes.Buffer))
	requireProof(t, r)
	require.Positive(t, r.Orders)
	require.Less(t, r.Orders, 5000)
	require.Empty(t, processesOf(t, dir))
}

// A month of real invoices, when they are there.
func TestAMonthOfInvoicesHoldsUnderFire(t *testing.T) {
	if os.Getenv("BACKSTAY_LONG") != "1" {
		t.Skip("takes minutes: set BACKSTAY_LONG=1")
	}
	const path = "../../../shared/data/online-retail.csv.gz"
	if _, err := os.Stat(path); err != nil {
		t.Skipf("the Online Retail data set is not at %s: put it there to run this test", path)
	}
	// December 2010 has 1,559 invoices.
	siege{seed: 1, orders: 1560, rate: 15, args: []string{"-replay", path}}.hold(t)
}

func TestAnInstanceThatCannotOpenEndsTheShop(t *testing.T) {
	failed := make(chan error, 1)
	var stderr bytes.Buffer
	f := newFleet(func(err error) { failed <- err }, &stderr)
	require.NoError(t, f.begin(&posting{Role: brokerRole, Name: "broker/1", Data: "/dev/null/none", Listen: "127.0.0.1:1"}))
	require.ErrorContains(t, f.await(t.Context()), "broker/1 has ended: exit status 1: ")
	require.ErrorContains(t, <-failed, "broker/1: it does not open: exit status 1: ")
	require.NoError(t, f.callIn(brokerRole))
	require.Contains(t, stderr.String(), "broker/1 has ended by itself")
	require.Equal(t, maxNeverOpened, f.started)
}

func TestAProcessThatDoesNotEndInOrderIsAnError(t *testing.T) {
	dir := t.TempDir()
	addr, err := steadyAddress()
	require.NoError(t, err)
	c, err := startProcess(&posting{Role: brokerRole, Name: "broker/1", Data: dir, Listen: addr})
	require.NoError(t, err)
	<-c.open
	c.pause()
	require.ErrorContains(t, c.stop(10*time.Millisecond), "it did not end within 10ms")
	require.True(t, c.hasEnded())
	require.Empty(t, processesOf(t, dir))
}

func TestWrongUseOfProcessesIsStatus2(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"instances alone":    {[]string{"-instances", "2"}, "-instances is only for -processes"},
		"cluster alone":      {[]string{"-nats-cluster", "3"}, "-nats-cluster is only for -processes"},
		"no instance":        {[]string{"-processes", "-instances", "0"}, "-instances is 0"},
		"two nodes":          {[]string{"-processes", "-nats-cluster", "2"}, "-nats-cluster is 2"},
		"cluster and broker": {[]string{"-processes", "-nats-cluster", "3", "-broker", "nats://127.0.0.1:1"}, "leave it out, or -broker"},
		"memory":             {[]string{"-processes", "-broker", "mem:"}, "-broker mem:"},
		"serve":              {[]string{"-processes", "-serve"}, "-serve"},
		"a broker away":      {[]string{"-processes", "-broker", "nats://127.0.0.1:1"}, "start the broker"},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			require.Equal(t, 2, run(t.Context(), c.args, &stdout, &stderr))
			require.Contains(t, stderr.String(), c.says)
			require.Empty(t, stdout.String())
		})
	}
	var stderr bytes.Buffer
	require.Equal(t, 2, beProcess(strings.NewReader(""), io.Discard, &stderr))
	require.Contains(t, stderr.String(), "-processes")
}

func TestTheScheduleFollowsFromTheSeed(t *testing.T) {
	first := func(seed uint64) (lines []string) {
		s := newSchedule(seed, []string{"orders/1", "orders/2"}, []string{"orders/1", "orders/1 to the broker"}, []string{"broker/1", "broker/2"})
		for range 100 {
			next, ok := s.strike()
			require.True(t, ok)
			lines = append(lines, fmt.Sprint(next))
		}
		return lines
	}
	once := first(1)
	require.Equal(t, once, first(1))
	require.NotEqual(t, first(1), first(2))
	_, ok := newSchedule(1, nil, nil, nil).strike()
	require.False(t, ok)
}

func TestTheScheduleKillsEveryTwoSeconds(t *testing.T) {
	s := newSchedule(1, []string{"orders/1", "orders/2", "views/1"}, nil, nil)
	var last, at time.Duration
	kills := map[string]int{}
	for at < time.Hour {
		next, _ := s.strike()
		require.GreaterOrEqual(t, next.at, at)
		at = next.at
		if next.kind != killed {
			continue
		}
		if last > 0 {
			require.Equal(t, 2*time.Second, at-last)
		}
		last = at
		kills[next.whom]++
	}
	for _, whom := range []string{"orders/1", "orders/2", "views/1"} {
		require.Greater(t, kills[whom], 400, whom)
	}
}
