// Package cases puts libraries through behavioural cases: what each of them does when things go wrong. A case knows nothing about
// libraries; a subject is a library behind small adapters, configured as well as its documentation allows. A case may hang or kill
// its process, so [Suite.Run] gives each one a child process of its own with a deadline, mostly built with the race detector, and real time.
// The suites are in the packages below this one.
package cases

import (
	"fmt"
	"time"
)

// Suite is a list of cases and the libraries that are put through them.
type Suite struct {
	Area     string // what the report groups by
	Cases    []Heading
	Subjects []Subject // this library first

	judge     []func(index int) error // by subject: runs the case with that index
	deadline  time.Duration
	earlier   map[string]string
	explained map[string]string
}

// Heading is what a case is called.
type Heading struct {
	ID    string // such as "T01"
	Title string
	Plain bool // built without the race detector
}

// Subject is what a library is called.
type Subject struct {
	Key  string // for the command line
	Name string // with its version
}

// Named is how a suite's own type of subject says what it is called, by embedding Subject.
func (s Subject) Named() Subject { return s }

// Case is one behaviour, asked of subjects of type S.
type Case[S any] struct {
	ID    string
	Title string
	Plain bool            // without the race detector, which would take too long or which uses too much memory
	Run   func(s S) error // nil is a pass, a Lack a case that cannot be put, any other error a failure
}

// Lack says why a case cannot be put to a subject.
type Lack string

func (l Lack) Error() string { return string(l) }

// Definition is what a suite is made of.
type Definition[S interface{ Named() Subject }] struct {
	Area     string
	Cases    []Case[S]
	Subjects []S
	Deadline time.Duration // for one case
	// Earlier is what an earlier, independent run of the same cases found: by the key of the subject a letter for each case from
	// the first on, p for pass and f for fail; "-" where it says nothing. A verdict that differs needs an explanation.
	Earlier map[string]string
	// Explained says why a verdict differs from what was found earlier, by key and case: "otter C04".
	Explained map[string]string
}

// Suite returns the suite.
func (d Definition[S]) Suite() *Suite {
	s := &Suite{Area: d.Area, deadline: d.Deadline, earlier: d.Earlier, explained: d.Explained}
	for _, c := range d.Cases {
		s.Cases = append(s.Cases, Heading{c.ID, c.Title, c.Plain})
	}
	for _, subject := range d.Subjects {
		s.Subjects = append(s.Subjects, subject.Named())
		s.judge = append(s.judge, func(index int) error { return d.Cases[index].Run(subject) })
	}
	return s
}

// Expected is what the earlier run found, or "" where it says nothing.
func (s *Suite) Expected(subject, id string) Verdict {
	cells, index := s.earlier[subject], s.index(id)
	if index < 0 || index >= len(cells) {
		return ""
	}
	switch cells[index] {
	case 'p':
		return Pass
	case 'f':
		return Fail
	default:
		return ""
	}
}

// Explained says why the verdict on a subject differs from that of the earlier run, or nothing.
func (s *Suite) Explained(subject, id string) string { return s.explained[subject+" "+id] }

func (s *Suite) index(id string) int {
	for i, c := range s.Cases {
		if c.ID == id {
			return i
		}
	}
	return -1
}

// Pause lets real time pass: what the cases measure is what a caller would see.
func Pause(d time.Duration) { <-time.After(d) }

// Eventually waits until ok says yes, and reports whether it did within the limit.
func Eventually(limit time.Duration, ok func() bool) bool {
	for start := time.Now(); time.Since(start) < limit; Pause(2 * time.Millisecond) {
		if ok() {
			return true
		}
	}
	return ok()
}

// Caught runs f and returns what it panicked with, or nil.
func Caught(f func()) (value any) {
	defer func() { value = recover() }()
	f()
	return nil
}

// Millis is a duration in whole milliseconds, for messages.
func Millis(d time.Duration) string { return fmt.Sprintf("%d ms", d.Milliseconds()) }
