// Package memsaga keeps sagas in memory: for tests, and for sagas that need not outlive the process.
//
// # Guarantees
//
// Everything that saga.Store asks for, among the runners of one process, for as long as the process lives: IDs are unique,
// an instance is claimed by one runner at a time, a stale token is refused, a change and its line of history appear
// together. Nothing survives the end of the process; use sqlsaga where it must.
//
// # Use
//
// A Store made in a bubble of testing/synctest runs on the bubble's clock, so that the retries, timeouts and leases of a
// service's sagas can be tested without waiting for them.
//
// Ended instances stay until Purge is called: a process that runs for long sets Config.Retention of the runner. Due times are kept
// in a heap, so that claiming costs the logarithm of the number of unfinished instances; listing costs time in proportion to
// all instances.
package memsaga
