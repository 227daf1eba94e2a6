package main

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestFiftyRequestsMeetEveryFault(t *testing.T) {
	for seed := range uint64(5) {
		f := newFaults(seed, true)
		f.outageAt = 1 << 30
		for range 20 {
			seen := map[fault]int{}
			for range deckSize {
				card, delay := f.deal()
				seen[card]++
				if card == slowFault {
					require.GreaterOrEqual(t, delay, 300*time.Millisecond)
					require.Less(t, delay, 700*time.Millisecond)
				} else {
					require.Zero(t, delay)
				}
			}
			for card := slowFault; card <= lostReplyFault; card++ {
				require.Positive(t, seen[card])
				require.Equal(t, deckOf[card], seen[card])
			}
		}
	}
}

func TestFaultsAreThoseOfTheSeed(t *testing.T) {
	play := func(seed uint64) (cards []fault) {
		f := newFaults(seed, true)
		f.outageAt = 1 << 30
		for range 200 {
			card, _ := f.deal()
			cards = append(cards, card)
		}
		return cards
	}
	first, again := play(7), play(7)
	require.Equal(t, first, again)
	require.NotEqual(t, first, play(8))
}

func TestFaultsDisabled(t *testing.T) {
	f := newFaults(1, false)
	for range 1000 {
		card, delay := f.deal()
		require.Equal(t, noFault, card)
		require.Zero(t, delay)
	}
	require.Zero(t, f.outageCount())
}

func TestOutagesBeginWhenTheyMust(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			f := newFaults(seed, true)
			// nextOutage deals until the bank goes down, and says at which request.
			nextOutage := func() int {
				for n := 1; ; n++ {
					if f.deal(); f.outageCount() > 0 && time.Now().Before(f.outageEnd) {
						return n
					}
				}
			}
			first := nextOutage()
			require.True(t, first >= 40 && first <= 60, "the first at %d", first)
			for range 3 {
				start := f.outageEnd.Add(-outageLength)
				refused := map[fault]int{}
				for time.Since(start) < outageLength {
					card, _ := f.deal()
					refused[card]++
					<-time.After(time.Millisecond)
				}
				require.Equal(t, 600, refused[unavailableFault]+refused[resetFault])
				require.NotZero(t, refused[unavailableFault])
				require.NotZero(t, refused[resetFault])
				next := nextOutage()
				require.True(t, next >= 300 && next <= 500, "the next after %d", next)
			}
			require.Equal(t, 4, f.outageCount())
		})
	}
}

func TestAServiceIsAwayOnce(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			a := newAbsence(seed, true)
			answered := 0
			for !a.away() {
				answered++
			}
			require.True(t, answered >= 39 && answered < 59, "away after %d", answered)
			start, refused := time.Now(), 1
			for <-time.After(time.Millisecond); a.away(); <-time.After(time.Millisecond) {
				refused++
			}
			require.Equal(t, absenceLength, time.Since(start))
			require.Equal(t, refused, a.refusals())
			for range 10_000 {
				require.False(t, a.away())
			}
		})
	}
	never := newAbsence(1, false)
	for range 1000 {
		require.False(t, never.away())
	}
}

func TestLuckIsEven(t *testing.T) {
	for seed := range uint64(3) {
		declined := 0
		for i := range 50_000 {
			if luck(seed, "decline", fmt.Sprintf("g1-%06d", i)) < declineShare {
				declined++
			}
		}
		require.InDelta(t, 2000, declined, 200)
	}
	drawn := luck(1, "a", "b")
	require.InDelta(t, drawn, luck(1, "a", "b"), 0)
	require.NotEqual(t, luck(1, "a", "b"), luck(2, "a", "b"))
	require.NotEqual(t, luck(1, "a", "b"), luck(1, "b", "b"))
}
