// Package ratelimit limits how many calls pass in a time, so that a quota is kept and a dependency is never asked for more
// than it can do.
//
// Use one for each quota: an API's contract, a tenant's share. A rate limit does not bound how many calls run at once: when
// the dependency becomes slow they pile up, and a bulkhead is what stops that.
//
// # Guarantees
//
//   - In any stretch of time d, at most Burst + d × Rate calls are let through, whatever mixture of Allow, Wait, Do and Wrap
//     lets them through.
//   - Callers that wait are served first come, first served. A caller cannot overtake those that wait, nor can many light
//     calls starve a heavy one.
//   - A caller that gives up before its turn has taken nothing: those behind it move up.
//   - A caller whose context is done is never let through, and one whose turn would come too late, for MaxWait or for its
//     context's deadline, is rejected at once instead of waiting in vain.
//   - A rejection is a [*Error] that is [ErrLimited]; the operation did not run. Its RetryAfter says when there is room. That
//     of a caller whose context ended while it waited wraps the context's error.
//   - Time is monotonic: setting the wall clock changes nothing.
//
// A caller that waits counts from the moment its turn comes; if the scheduler wakes it late, it runs late. The interval
// between calls is kept in sixteenths of a nanosecond and rounded up, so the rate is never exceeded; it is missed by less than
// 0.01 % up to 1,000,000 a second, and by less than 1 % up to 100,000,000.
//
// A call that passes at once reads the clock once, takes no lock and allocates nothing.
//
// # Usage
//
//	l := ratelimit.New(ratelimit.Config{Name: "geocoder", Rate: 50, Burst: 10, MaxWait: time.Second})
//	locate := ratelimit.Wrap(l, geocoder.Locate)
//
// [Limiter.Allow] is for those who would rather drop than wait, [Limiter.Wait] for loops. A [Set] holds one limiter for each
// key, such as a tenant or a client's address, in bounded memory:
//
//	tenants := ratelimit.NewSet[string](ratelimit.SetConfig{Name: "tenants", Each: ratelimit.Config{Rate: 5}})
//	search := ratelimit.WrapBy(tenants, tenantOf, index.Search)
//
// # Algorithm
//
// The generic cell rate algorithm (GCRA) of ITU-T Recommendation I.371, annex A, which began as the rate policing of ATM
// networks: a token bucket whose whole state is one moment, the theoretical arrival time, that each call moves on by one
// interval. One compare-and-swap changes it. Waiting is a queue beside it, rather than the usual reservation of later
// moments, because a reservation that is handed back in the middle leaves a hole that nobody can use.
package ratelimit
