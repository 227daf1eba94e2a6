// Package kafkapubsub is the pubsub driver for Apache Kafka.
package kafkapubsub
