// Package cloudevents writes messages as CloudEvents 1.0 in binary mode, and reads them: the pure functions between a
// pubsub.Message and the headers of a broker, for drivers and for services that talk to other CloudEvents producers.
//
// # Guarantees
//
// Identity: what Encode accepts, Decode gives back equal: ID, Topic, Key, Time in UTC, Header and the attributes that
// have no field of their own. Payload is not touched: in binary mode it is the body of the broker's message.
//
// Conformity: the required attributes specversion, id, source and type are there, names and escaping are those of the
// binding. One liberty is taken: an ID or Key with control characters, which pubsub allows and CloudEvents does not, is
// carried and not refused.
//
// Strictness: Decode believes nothing. It never panics, and returns an error for a missing or repeated attribute, another
// version, a time that is not RFC 3339 and text that is not UTF-8, together with what it could read, so that a driver may
// take a message that is no event for a plain one. Structured mode, in which the attributes are in the body, is refused
// with ErrStructured; so is batched mode.
//
// All functions are pure and safe for concurrent use.
//
// # Mapping
//
//	id              Message.ID
//	type            Message.Topic
//	partitionkey    Message.Key, of the Partitioning extension; absent when empty
//	time            Message.Time; absent when zero
//	datacontenttype Header["content-type"]; see ContentType
//	source          Event.Source
//	all others      Event.Attributes: subject, dataschema and extensions
//
// Headers that are not attributes go through under their own names.
//
//	binding  attribute  values           datacontenttype
//	NATS     ce-id      percent-encoded  ce-datacontenttype, and content-type for other readers
//	Kafka    ce_id      UTF-8            content-type
//	AMQP     cloudEvents_id, or cloudEvents:id when read   UTF-8   the property content-type
//	HTTP     ce-id      percent-encoded  content-type
//
// Percent-encoding is that of the HTTP binding, 3.1.3.2: space, '"', '%' and all that is not printable ASCII. When read,
// a quoted string is unquoted first, and a '%' that begins no escape, as older producers send, stands for itself.
//
// # Use
//
//	headers, err := cloudevents.Kafka.Encode(cloudevents.Event{Message: m, Source: "/shop"})
//	for name, value := range headers { … }
//
//	event, err := cloudevents.Kafka.Decode(maps.All(received))
//
// A service that publishes with one of the drivers needs none of this.
//
// # Sources
//
// CloudEvents 1.0.2; its HTTP, Kafka and AMQP protocol bindings of the same version; the NATS protocol binding 1.0.3 (work
// in progress), since that of 1.0.2 has no binary mode; the Partitioning extension.
package cloudevents
