package cloudevents_test

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/pubsub/cloudevents"
)

func Example() {
	headers, err := cloudevents.NATS.Encode(cloudevents.Event{
		Message: pubsub.Message{
			ID: "o-1/placed", Topic: "orders.placed", Key: "customer 7", Time: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC),
		},
		Source: "/shop",
	})
	if err != nil {
		panic(err)
	}
	sent := maps.Collect(headers)
	for _, name := range slices.Sorted(maps.Keys(sent)) {
		fmt.Printf("%s: %s\n", name, sent[name])
	}
	// Output:
	// ce-id: o-1/placed
	// ce-partitionkey: customer%207
	// ce-source: /shop
	// ce-specversion: 1.0
	// ce-time: 2026-03-04T05:06:07Z
	// ce-type: orders.placed
}

// An event of another producer may have attributes that a message has no field for.
func ExampleBinding_Decode() {
	event, err := cloudevents.Kafka.Decode(maps.All(map[string]string{
		"ce_specversion": "1.0", "ce_id": "17", "ce_source": "/billing", "ce_type": "invoice.paid",
		"ce_subject": "invoice-4", "content-type": "application/json",
	}))
	fmt.Println(event.Message.ID, event.Message.Topic, event.Message.Header, event.Source, event.Attributes, err)
	// Output: 17 invoice.paid map[content-type:application/json] /billing map[subject:invoice-4] <nil>
}

// A message that is no event is still a message: what could be read comes with the error.
func ExampleBinding_Decode_other() {
	event, err := cloudevents.AMQP.Decode(maps.All(map[string]string{"tenant": "acme"}))
	fmt.Println(err)
	fmt.Println(event.Message.Header)
	// Output:
	// cloudevents: attribute specversion is missing
	// map[tenant:acme]
}
