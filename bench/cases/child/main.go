// Child runs one behavioural case for one subject in a process of its own. It is started by the report; by hand:
//
//	go run -race ./bench/cases/child SUBJECT CASE
package main

import (
	"fmt"
	"os"

	"github.com/backstay-go/backstay/bench/cases"
	"github.com/backstay-go/backstay/bench/cases/caches"
	"github.com/backstay-go/backstay/bench/cases/resilience"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: child SUBJECT CASE")
		os.Exit(2)
	}
	suites := []*cases.Suite{resilience.Suite(), caches.Suite()}
	if err := cases.Child(suites, os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		os.Exit(1)
	}
}
