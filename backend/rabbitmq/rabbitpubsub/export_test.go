package rabbitpubsub

import "github.com/backstay-go/backstay/pubsub"

// Entities are the queues and exchanges that a subscription makes.
func Entities(c Config, s pubsub.Subscription) (queues, exchanges []string) {
	c = c.withDefaults()
	dead := pubsub.DeadLetterTopic(s.Topic, s.Group)
	queues = append(queuesOf(c, s), c.kept(dead), c.members(s.Topic, s.Group), c.wanting(s.Topic, s.Group))
	return queues, []string{c.exchange(s.Topic), c.unrouted(s.Topic), c.exchange(dead), c.unrouted(dead)}
}

// Lane is that of a key.
func Lane(c Config, key string) int { return c.withDefaults().lane(key, "") }
