// Package grpcpolicy puts policies round gRPC: [UnaryClient] and [StreamClient] round the calls of a grpc.ClientConn,
// [UnaryServer] and [StreamServer] round the methods of a grpc.Server. [PerMethod] and [PerKey] choose the policy by the call.
//
// # Guarantees of the client side
//
//   - Unknown, Canceled, DeadlineExceeded, ResourceExhausted, Aborted, Internal, Unavailable and DataLoss are failures for the
//     policies, which see a [*StatusError]. The other codes are the caller's fault or an answer, such as NotFound: a breaker
//     counts them as successes and nobody repeats them. A cancellation by the caller counts as nothing.
//   - The caller gets the status error of the last attempt as it was, its details included, also when the retrier gave up or a
//     breaker opened meanwhile.
//   - A call that a policy ended gets an [*Error]: a status for those that ask for its code, and still ErrOpen, ErrFull,
//     ErrLimited or ErrTimeout for errors.Is.
//   - A unary call is sent again only if the caller of UnaryClient declared its method idempotent, or its outgoing metadata has
//     an idempotency-key or x-idempotency-key, or it ended as Unavailable and grpc says that it never had a connection. No
//     policy can get round this.
//   - Retry pushback is honoured: a grpc-retry-pushback-ms in the trailer delays the next attempt, and one that is negative or
//     cannot be read rules it out. So is the delay of a RetryInfo in the status's details.
//   - All policies hold a stream's permit, and a timeout bounds it, until the stream ends: an error or io.EOF from RecvMsg, the
//     only reply of a method that does not stream them, an error but io.EOF from SendMsg or Header, the end of its context, or
//     the closing of the connection. It is given back once, before the method that saw the end returns.
//   - Only the creation of a stream is repeated, when it is Unavailable: nothing was sent yet.
//
// A stream must be ended by its caller, as always in gRPC: until then it holds its permit. A breaker that judges slow calls
// judges the whole life of a stream.
//
// # Guarantees of the server side
//
//   - A call that a policy refuses never reaches the handler. It is answered with ResourceExhausted (rate limit, bulkhead) or
//     Unavailable (anything else), with a RetryInfo and a grpc-retry-pushback-ms, so that clients of every kind know when to
//     come back; where the policy does not say, that is after one second.
//   - The handler runs at most once. Its own failures, by the codes above, count as failures; its own error is the answer.
//   - Permits are held until the handler returns. A handler whose timeout ran out and that failed is answered for with
//     DeadlineExceeded. The timeout is cooperative.
//
// On all sides panics of the code below pass through on the goroutine they began on, and everything held is given back.
//
// # Usage
//
//	reads := func(method string) bool { return strings.HasPrefix(method, "/shop.Catalogue/Get") }
//	conn, err := grpc.NewClient(target, creds,
//		grpc.WithChainUnaryInterceptor(grpcpolicy.UnaryClient(reads, total, retrier, breaker, bulkhead, attempt)),
//		grpc.WithChainStreamInterceptor(grpcpolicy.StreamClient(breaker, bulkhead)))
//	server := grpc.NewServer(
//		grpc.ChainUnaryInterceptor(grpcpolicy.UnaryServer(limiter, bulkhead)),
//		grpc.ChainStreamInterceptor(grpcpolicy.StreamServer(limiter, bulkhead)))
//
// The order is the canonical one of the root package. Interceptors further in must pass the call options on. Where a service
// config gives a method a retryPolicy, grpc itself repeats it, below these policies; leave the repeating to one of the two.
// Policies that should judge by something else than the code get a classifier that looks at StatusError.Code.
//
// StreamClient runs its policies on a goroutine of their own, one for each stream, which ends with it: so any policy, also one
// that is none of this module's, spans the stream's life. Their hooks run on that goroutine and must not panic.
//
// The meaning of the codes is that of the gRPC documentation ("Status codes and their use in gRPC"); pushback is from gRPC
// proposal A6, "gRPC Retry Design"; RetryInfo is google.rpc.RetryInfo. Shedding load with an answer that says when to come back
// is from Betsy Beyer and others, Site Reliability Engineering (2016), chapter 21.
package grpcpolicy
