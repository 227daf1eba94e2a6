// Package rabbitpubsub is the pubsub driver for RabbitMQ, with quorum queues and publisher confirms.
package rabbitpubsub
