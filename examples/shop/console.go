package main

import (
	"net/http"

	"github.com/backstay-go/backstay/console"
)

// consolePath is where the console is, beside the shop's own pages. A real service has it where only operators come.
const consolePath = "/backstay/"

// withConsole adds the live page and the health of the shop to its pages.
func (s *shop) withConsole(pages http.Handler, g *gateway) http.Handler {
	s.console.Add(s.teller.objects...)
	s.console.Add(g.objects...)
	s.console.Add(s.bus, s.runner)
	for _, c := range s.consumers {
		s.console.Add(c)
	}
	for _, r := range s.relays {
		s.console.Add(r)
	}
	for _, in := range s.inboxes {
		s.console.Add(in)
	}
	mux := http.NewServeMux()
	mux.Handle("/", pages)
	mux.Handle(consolePath, s.console)
	mux.Handle("/livez", s.console.Liveness())
	mux.Handle("/readyz", s.console.Readiness(console.Check{Name: "orders.db", Probe: s.dbs.orders.PingContext}))
	return mux
}
