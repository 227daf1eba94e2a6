package test

import (
	"flag"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/kafka/kafkapubsub"
	"github.com/backstay-go/backstay/backend/nats/natsembed"
	"github.com/backstay-go/backstay/backend/nats/natspubsub"
	"github.com/backstay-go/backstay/backend/rabbitmq/rabbitpubsub"
	"github.com/backstay-go/backstay/backend/redis/redispubsub"
	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/pubsub/mempubsub"
)

var update = flag.Bool("update", false, "the tests of generated tables write them into the pages")

const (
	tableBegin = "<!-- guarantees: go test ./test -run TestGuaranteeTable -update -->\n"
	tableEnd   = "<!-- guarantees: end -->\n"
)

// TestGuaranteeTable compares the table of guarantees in docs/guarantees.md with what the drivers declare, each connected to a
// broker of its own.
func TestGuaranteeTable(t *testing.T) {
	table := guaranteeTable([]declared{
		{"`mempubsub`", mempubsub.New(mempubsub.Config{}).Capabilities()},
		{"`natspubsub`, file", natsCapabilities(t, natspubsub.Config{})},
		{"`natspubsub`, memory", natsCapabilities(t, natspubsub.Config{Storage: "memory"})},
		{"`redispubsub`, append-only file", redisCapabilities(t, "--appendonly", "yes")},
		{"`redispubsub`, no file", redisCapabilities(t, "--appendonly", "no")},
		{"`rabbitpubsub`", rabbitCapabilities(t)},
		{"`kafkapubsub`", kafkaCapabilities(t)},
	})
	generated(t, "../docs/guarantees.md", tableBegin, tableEnd, table)
}

// natsCapabilities asks a driver on an embedded server.
func natsCapabilities(t *testing.T, cfg natspubsub.Config) pubsub.Capabilities {
	t.Helper()
	server, err := natsembed.Start(natsembed.Config{Dir: t.TempDir()})
	require.NoError(t, err)
	defer func() { require.NoError(t, server.Close()) }()
	conn, err := server.Connect()
	require.NoError(t, err)
	defer conn.Close()
	driver, err := natspubsub.New(t.Context(), conn, cfg)
	require.NoError(t, err)
	defer func() { require.NoError(t, driver.Close()) }()
	return driver.Capabilities()
}

// redisCapabilities asks a driver on a server with these settings.
func redisCapabilities(t *testing.T, settings ...string) pubsub.Capabilities {
	t.Helper()
	driver, err := redispubsub.Open(eventually(t), ownRedis(t, settings...), redispubsub.Config{})
	require.NoError(t, err)
	defer func() { require.NoError(t, driver.Close()) }()
	return driver.Capabilities()
}

// rabbitCapabilities asks a driver on the shared server, where it makes nothing.
func rabbitCapabilities(t *testing.T) pubsub.Capabilities {
	t.Helper()
	needsRabbitMQ(t)
	driver, err := rabbitpubsub.Open(eventually(t), rabbitURL(), rabbitpubsub.Config{})
	require.NoError(t, err)
	defer func() { require.NoError(t, driver.Close()) }()
	return driver.Capabilities()
}

// kafkaCapabilities asks a driver on a cluster in this process.
func kafkaCapabilities(t *testing.T) pubsub.Capabilities {
	t.Helper()
	driver, err := kafkapubsub.Open(eventually(t), ownKafka(t), kafkapubsub.Config{})
	require.NoError(t, err)
	defer func() { require.NoError(t, driver.Close()) }()
	return driver.Capabilities()
}

// declared is one column of the table.
type declared struct {
	title string
	caps  pubsub.Capabilities
}

// guarantees are the rows: what is guaranteed, and what a driver says to it. The fields are those of Capabilities that
// the row is made of.
var guarantees = []struct {
	title, fields string
	say           func(c pubsub.Capabilities) string
}{
	{"delivery", "", func(pubsub.Capabilities) string { return "at least once" }},
	{"order of a key (`Ordered`)", "Ordered", func(c pubsub.Capabilities) string { return yesNo(c.Ordered) }},
	{"`Publish` returned nil: the message is", "Durability", func(c pubsub.Capabilities) string { return c.Durability }},
	{"survives the end of every process", "Durable", func(c pubsub.Capabilities) string { return yesNo(c.Durable) }},
	{"a repeated ID is dropped for at least", "Dedup", func(c pubsub.Capabilities) string {
		if c.Dedup == 0 {
			return "not dropped"
		}
		return inWords(c.Dedup)
	}},
	{"held back until `DeliverAt`", "DeliverAt", func(c pubsub.Capabilities) string { return yesNo(c.DeliverAt) }},
	{"a new group can begin", "ReplayFromStart ReplayFromTime", func(c pubsub.Capabilities) string {
		from := []string{"at the end"}
		if c.ReplayFromStart {
			from = append(from, "at the start")
		}
		if c.ReplayFromTime {
			from = append(from, "at a time")
		}
		return strings.Join(from, ", ")
	}},
	{"groups that end with their consumer (`Temporary`)", "Temporary", func(c pubsub.Capabilities) string { return yesNo(c.Temporary) }},
	{"backoff of an unordered message is kept by", "DelayedNack", func(c pubsub.Capabilities) string {
		if c.DelayedNack {
			return "the broker"
		}
		return "the consumer, leased"
	}},
	{"longest payload", "MaxPayload", func(c pubsub.Capabilities) string {
		if c.MaxPayload == 0 {
			return "no limit of its own"
		}
		return fmt.Sprintf("%d bytes", c.MaxPayload)
	}},
	{"a `Publish` whose context has ended is left by", "PublishObeysContext", func(c pubsub.Capabilities) string {
		if c.PublishObeysContext {
			return "the driver, at once"
		}
		return "the `Bus`, after a second"
	}},
	{"verdicts are settled", "SettleDoesNotBlock", func(c pubsub.Capabilities) string {
		if c.SettleDoesNotBlock {
			return "in memory"
		}
		return "over the connection"
	}},
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func inWords(d time.Duration) string {
	if d%time.Minute == 0 {
		return fmt.Sprintf("%d minutes", d/time.Minute)
	}
	return d.String()
}

func guaranteeTable(drivers []declared) string {
	var b strings.Builder
	row := func(title string, cell func(declared) string) {
		b.WriteString("| " + title + " |")
		for _, d := range drivers {
			b.WriteString(" " + cell(d) + " |")
		}
		b.WriteString("\n")
	}
	row("guarantee", func(d declared) string { return d.title })
	row("---", func(declared) string { return "---" })
	for _, g := range guarantees {
		row(g.title, func(d declared) string { return g.say(d.caps) })
	}
	return b.String()
}

// TestTheGuaranteeTableLeavesNothingOut looks for each field of Capabilities among the rows, and changes each in turn: a
// row must then say something else.
func TestTheGuaranteeTableLeavesNothingOut(t *testing.T) {
	said := map[string]bool{"Driver": true, "PublishForgetsContext": true, "Fixed": true} // these spare the Bus work, and promise users nothing
	for _, g := range guarantees {
		for field := range strings.FieldsSeq(g.fields) {
			said[field] = true
			var caps pubsub.Capabilities
			none := g.say(caps)
			switch v := reflect.ValueOf(&caps).Elem().FieldByName(field); v.Kind() {
			case reflect.Bool:
				v.SetBool(true)
			case reflect.String:
				v.SetString("carved in stone")
			default:
				v.SetInt(int64(time.Hour))
			}
			require.NotEqual(t, none, g.say(caps), "the row %q does not depend on %s", g.title, field)
		}
	}
	for field := range reflect.TypeFor[pubsub.Capabilities]().Fields() {
		require.True(t, said[field.Name], "the table does not say %s", field.Name)
	}
}
