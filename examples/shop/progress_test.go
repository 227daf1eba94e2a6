package main

import (
	"bytes"
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestProgressIsAPlainLineEveryTwoSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		s := snapshot{Phase: "placing orders", Orders: 2000}
		var out bytes.Buffer
		showProgress(ctx, &out, func() snapshot {
			s.Answered, s.Accepted, s.Ended = s.Answered+500, s.Accepted+499, s.Ended+400
			return s
		})
		require.Equal(t, ""+
			"placing orders: 500 of 2,000 answered, 499 accepted, 400 orders ended, 2.0 s\n"+
			"placing orders: 1,000 of 2,000 answered, 998 accepted, 800 orders ended, 4.0 s\n"+
			"placing orders: 1,500 of 2,000 answered, 1,497 accepted, 1,200 orders ended, 5.0 s\n", out.String())
	})
}

func TestProgressRewritesItsLineOnATerminal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 600*time.Millisecond)
		defer cancel()
		var out bytes.Buffer
		writeProgress(ctx, &out, terminalStyle, func() snapshot { return snapshot{Phase: "settling"} })
		require.Equal(t, ""+
			"\r\x1b[Ksettling: 0 of 0 answered, 0 accepted, 0 orders ended, 0.5 s"+
			"\r\x1b[Ksettling: 0 of 0 answered, 0 accepted, 0 orders ended, 0.6 s\n", out.String())
	})
}

func TestProgressEndsWhenStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			showProgress(ctx, brokenWriter{}, func() snapshot { return snapshot{} }) // a closed pipe stops nothing else
		}()
		synctest.Wait()
		start := time.Now()
		cancel()
		<-done
		require.Zero(t, time.Since(start))
	})
}
