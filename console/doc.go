// Package console is a live page of what a service's patterns are doing: breakers and their states, retries and what is left of their
// budgets, bulkheads and rate limits, caches, subscriptions, outboxes, sagas, and a log of what happened. The same is there as JSON, and
// health handlers are fed by the same objects. It is for the operator of one process; to keep numbers over time or over many processes,
// export them to a telemetry system.
//
// # Guarantees
//
//   - No viewer, no work: objects are looked at while somebody watches, for each question asked of the JSON, and never else. A first
//     look is had for the first viewer.
//   - The hot path is not touched: an object is asked for its Metrics twice a second however many watch, outside of locks. A viewer that
//     does not read is dropped; it delays no other viewer and nothing in the service.
//   - All viewers see the same: a look is made once and sent to all as the same bytes.
//   - Memory is bounded: by History and Events, 200 metrics for each object, 64 viewers, eight messages for each. A metric that has not
//     changed in the time of History takes no history.
//   - Read-only, unless [WithActions] allows something; then each action is asked of the service's own function, and requests from other
//     sites' pages are refused before that.
//   - What objects are called, say and hold is shown as text, never run: nothing on the page parses markup, a strict
//     Content-Security-Policy forbids scripts that are not the page's own, and invisible characters are made visible. Nothing is loaded
//     from elsewhere.
//   - An object whose method panics is shown as such; one that blocks holds up the page and nothing else.
//
// There is no sign-in: mount the console behind the service's own, or on an address that only operators reach. Values in a
// configuration are hidden where their name says password, secret, token, key or the like, and where a URL holds a password.
//
// # Usage
//
//	c := console.New(console.Config{Name: "orders"})
//	c.Add(breaker, retrier, catalogue, relay)
//	mux.Handle("/backstay/", c)
//	mux.Handle("/livez", c.Liveness())
//	mux.Handle("/readyz", c.Readiness())
//	server.RegisterOnShutdown(c.Close)
//
// Whatever has Describe and Metrics appears (see [Object]), an object of one's own too. Hooks such as breaker.OnStateChange can feed the event
// log by [Console.Record], so that what happens while nobody looks is in it.
//
// # Proxies
//
// Links are relative, so a proxy may serve the page under any path. The stream asks proxies not to buffer; where one does so all the
// same, the page notices within seconds and asks for the JSON once a second instead.
//
// The live page of circuit breakers follows Netflix's Hystrix Dashboard (2012).
package console
