package main

import (
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"time"
)

type fault int

const (
	noFault          fault = iota
	slowFault              // 300 to 700 ms before anything is done
	unavailableFault       // 503 with Retry-After; nothing is done
	resetFault             // the connection is reset; nothing is done
	lostReplyFault         // it is done, and the connection is reset in place of the answer
)

const (
	deckSize     = 50
	outageLength = 600 * time.Millisecond
	declineShare = 0.04

	absenceLength = 1200 * time.Millisecond // longer than the catalogue's TTL
)

// deckOf says how often each fault is in a deck; the rest of the cards are good.
var deckOf = map[fault]int{slowFault: 3, unavailableFault: 4, resetFault: 3, lostReplyFault: 3}

// faults is a bank's schedule of misbehaviour: the same seed deals the same faults to the same numbers of requests. Faults
// are dealt like cards, so that a run too short for good odds still meets each of them. Safe for concurrent use.
type faults struct {
	seed    uint64
	enabled bool

	mu        sync.Mutex
	rng       *rand.Rand
	deck      []fault
	dealt     int // requests outside outages
	outageAt  int // the value of dealt at which the next outage begins
	outageEnd time.Time
	turn      int // requests inside outages
	outages   int
}

func newFaults(seed uint64, enabled bool) *faults {
	f := &faults{seed: seed, enabled: enabled, rng: rand.New(rand.NewPCG(seed, 0x62616e6b))}
	f.outageAt = 40 + f.rng.IntN(21)
	return f
}

// deal says what happens to the next request, and for a slow one how long it takes.
func (f *faults) deal() (fault, time.Duration) {
	if !f.enabled {
		return noFault, 0
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.outage() {
		f.turn++
		if f.turn%2 == 0 {
			return resetFault, 0
		}
		return unavailableFault, 0
	}
	f.dealt++
	if len(f.deck) == 0 {
		f.shuffle()
	}
	card := f.deck[0]
	f.deck = f.deck[1:]
	if card == slowFault {
		return card, 300*time.Millisecond + time.Duration(f.rng.Int64N(int64(400*time.Millisecond)))
	}
	return card, 0
}

// outage reports whether the bank is down, and takes it down when it is time.
func (f *faults) outage() bool {
	now := time.Now()
	if f.dealt+1 >= f.outageAt {
		f.outageEnd = now.Add(outageLength)
		f.outageAt = f.dealt + 300 + f.rng.IntN(201)
		f.outages++
	}
	return now.Before(f.outageEnd)
}

func (f *faults) shuffle() {
	f.deck = make([]fault, 0, deckSize)
	for card := slowFault; card <= lostReplyFault; card++ {
		for range deckOf[card] {
			f.deck = append(f.deck, card)
		}
	}
	for len(f.deck) < deckSize {
		f.deck = append(f.deck, noFault)
	}
	f.rng.Shuffle(deckSize, func(i, j int) { f.deck[i], f.deck[j] = f.deck[j], f.deck[i] })
}

func (f *faults) outageCount() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.outages
}

// declines reports whether the card of this order is no good: it is so for good, whenever it is asked.
func (f *faults) declines(orderID string) bool {
	return f.enabled && luck(f.seed, "decline", orderID) < declineShare
}

// An absence is the one time that a service is away: it begins with a request that follows from the seed, and lasts for
// absenceLength. Safe for concurrent use.
type absence struct {
	mu      sync.Mutex
	before  int // requests until it begins; 0: it has begun, or never will
	end     time.Time
	refused int
}

func newAbsence(seed uint64, enabled bool) *absence {
	if !enabled {
		return &absence{}
	}
	return &absence{before: 40 + int(20*luck(seed, "stocktaking", "all shelves"))}
}

// away reports whether the next request comes while the service is away.
func (a *absence) away() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.before > 0 {
		a.before--
		if a.before == 0 {
			a.end = time.Now().Add(absenceLength)
		}
	}
	away := time.Now().Before(a.end)
	if away {
		a.refused++
	}
	return away
}

func (a *absence) refusals() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.refused
}

// luck is a number in [0, 1) that depends on its arguments alone, evenly spread over ids.
func luck(seed uint64, purpose, id string) float64 {
	h := fnv.New64a()
	h.Write([]byte(purpose + "\x00" + id))
	return rand.New(rand.NewPCG(seed, h.Sum64())).Float64()
}
