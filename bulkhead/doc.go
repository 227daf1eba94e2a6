// Package bulkhead limits how many calls run at once, so that one slow dependency cannot take every goroutine, connection
// or byte of memory with it.
//
// Use one for each resource that can be used up separately, or a [Set] where there is one for each host or tenant. A bulkhead
// bounds concurrency, not rate: for a number of calls a second use a rate limit.
//
// # Guarantees
//
//   - At most MaxConcurrent operations run at once, or operations of that weight together; at most MaxQueue callers wait.
//   - Waiting callers are served first come, first served. A caller cannot overtake those that wait, nor can many light calls
//     starve a heavy one.
//   - A caller whose context is done, before or while waiting, is never admitted, and its place is given on. A permit that was
//     handed over in the same moment goes to the next caller. One that came with such a context gets its error as it is; for
//     one that waited the bulkhead was full until its time was over, so that is a rejection which wraps the context's error.
//   - A permit is released on every way out, panic and Goexit included, and exactly once.
//   - A rejection is a [*Error] that is [ErrFull]; the operation did not run.
//
// An uncontended call costs two compare-and-swaps, takes no lock and allocates nothing.
//
// # Usage
//
//	b := bulkhead.New(bulkhead.Config{Name: "bank", MaxConcurrent: 16, MaxQueue: 64})
//	charge := bulkhead.Wrap(b, bank.Charge)
//
// [Bulkhead.AcquireN] is for calls that weigh more than others, such as a large upload. The limit can be changed while running
// with [Bulkhead.Reconfigure]. A lower limit takes hold as running calls end: none is interrupted.
//
//	hosts := bulkhead.NewSet[string](bulkhead.SetConfig{Name: "hosts", Each: bulkhead.Config{MaxConcurrent: 16}})
//	fetch := bulkhead.WrapBy(hosts, hostOf, crawler.Fetch)
//
// The pattern is Michael Nygard's (Release It!, 2007); the hand-over of a permit to the longest waiting caller is that of a
// fair counting semaphore (E. W. Dijkstra, 1965).
package bulkhead
