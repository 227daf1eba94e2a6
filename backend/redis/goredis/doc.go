// Package goredis makes a [rediscache.Store] of a go-redis client, for services that have one. The guarantees and what is
// stored are those of package rediscache; processes with either client can share entries.
//
// # Guarantees
//
//   - Every call ends with its context, also while Redis is stopped. go-redis does not look at cancellation while it waits
//     for an answer, so a call that is cancelled leaves a goroutine and a connection behind until the context's
//     deadline or the client's ReadTimeout (three seconds unless set) has passed; New refuses clients whose
//     options lack ContextTimeoutEnabled, without which go-redis would wait past the deadline as well.
//   - go-redis repeats a call whose answer was lost, up to MaxRetries. The scripts recognise a repetition, so Lease and Fill
//     answer as they did the first time. A Set that is repeated may come after another process's Set that began later:
//     set MaxRetries to -1 where that matters, and treat the failed Set as in doubt.
//   - Watch has one connection to each server, made with the client's own options.
//
// # Use
//
//	client := redis.NewClient(&redis.Options{
//		Addr:                  "127.0.0.1:6379",
//		ContextTimeoutEnabled: true,
//		DialTimeout:           time.Second, // an attempt to connect; the default is five
//	})
//	defer client.Close()
//	users, err := goredis.New[string, User](client, rediscache.Config{Prefix: "users:1"})
package goredis
