package requestreply

import (
	"context"
	"fmt"

	"github.com/backstay-go/backstay/pubsub"
)

// Option gives a Client or Server behaviour.
type Option func(*settings)

type settings struct {
	request, reply any // pubsub.Codec of their types, nil for JSON
	publisher      pubsub.Publisher
	probe          ResponderProbe
	group          string
	onError        func(context.Context, pubsub.Message, error)
}

// WithCodecs sets how requests and replies are encoded. Client and server must agree. The default is JSON. NewClient and
// NewServer panic when the codecs are for other types than theirs.
func WithCodecs[Req, Resp any](request pubsub.Codec[Req], reply pubsub.Codec[Resp]) Option {
	return func(s *settings) { s.request, s.reply = request, reply }
}

// WithPublisher makes a Client publish its requests through p, for instance one that adds a trace, and not through the
// bus that it receives replies from. A Server has its publisher as an argument and ignores this.
func WithPublisher(p pubsub.Publisher) Option {
	if p == nil {
		panic("requestreply: WithPublisher(nil)")
	}
	return func(s *settings) { s.publisher = p }
}

// ResponderProbe tells how many members a group has. The drivers whose brokers know are one:
// mempubsub, natspubsub, rabbitpubsub and kafkapubsub.
type ResponderProbe interface {
	// Responders returns the number of members of the group that are connected now. It may block until ctx is done, and
	// is called for every Call: a probe that asks the network should remember its answer for a while.
	Responders(ctx context.Context, topic, group string) (n int, err error)
}

// WithProbe makes a Client ask p for the members of the servers' group before it sends, and fail with ErrNoResponders
// when there are none. When p fails, the request is sent all the same. A Server ignores this.
func WithProbe(p ResponderProbe, group string) Option {
	if p == nil {
		panic("requestreply: WithProbe(nil)")
	}
	return func(s *settings) { s.probe, s.group = p, group }
}

// OnError makes a Server call fn for every error that it sends to a caller, with the whole of it: its text is shortened
// on the way, and a panic of the function is there with its stack. It runs on the goroutine of the handler before the reply is sent. A
// Client ignores this.
func OnError(fn func(ctx context.Context, request pubsub.Message, err error)) Option {
	if fn == nil {
		panic("requestreply: OnError(nil)")
	}
	return func(s *settings) { s.onError = fn }
}

func apply(opts []Option) settings {
	s := settings{onError: func(context.Context, pubsub.Message, error) {}}
	for _, opt := range opts {
		opt(&s)
	}
	return s
}

// codecOf is the codec for T that an option has given, or JSON.
func codecOf[T any](given any) pubsub.Codec[T] {
	if given == nil {
		return pubsub.JSONCodec[T]()
	}
	codec, ok := given.(pubsub.Codec[T])
	if !ok {
		panic(fmt.Sprintf("requestreply: WithCodecs with a %T where a %T is needed", given, codec))
	}
	if codec.Encode == nil || codec.Decode == nil {
		panic("requestreply: WithCodecs with a codec that lacks a function")
	}
	return codec
}

type keyOption struct{}

// WithIdempotencyKey returns a child of ctx whose calls carry key to the server, where IdempotencyKey finds it. Use it
// round a retry, so that all attempts of one request have one key, and choose a new one for every request.
func WithIdempotencyKey(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, keyOption{}, key)
}

type keyReceived struct{}

// IdempotencyKey is, in the context of a Server's function, the key of the request: the same for every time that the
// request is run. It is the caller's, or else one that the client made for the call. Elsewhere it is empty. It does not
// travel on: calls made with this context have keys of their own.
func IdempotencyKey(ctx context.Context) string {
	key, _ := ctx.Value(keyReceived{}).(string)
	return key
}
