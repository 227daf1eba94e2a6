// Package bench holds the benchmarks of backstay as data, so that the same cases run under "go test -bench" and in the report
// command. Every case has a floor, the bare work without any policy, and where one exists peers that do the same work.
package bench

import (
	"context"
	"testing"
)

// Case is one subject doing one piece of work.
type Case struct {
	Area    string // what the report groups by
	Name    string // the work
	Subject string // who does it: "floor", "backstay" or a peer with its version
	Run     func(b *testing.B)
}

// Floor is the subject that every other is compared with.
const Floor = "floor"

// Cases returns all cases, the floor of each piece of work first.
func Cases() []Case { return control() }

// work is what all control cases wrap: too little to hide any cost.
func work(_ context.Context, n int) (int, error) { return n + 1, nil }

// loop calls fn b.N times, serially.
func loop(fn func(context.Context, int) (int, error)) func(*testing.B) {
	return func(b *testing.B) {
		ctx := context.Background()
		b.ReportAllocs()
		n := 0
		for b.Loop() {
			out, err := fn(ctx, n)
			if err == nil {
				n = out
			}
		}
	}
}
