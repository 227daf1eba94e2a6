//go:build !race

// A dozen processes that are ten times as slow, and their servers, are more than two cores bear in a bounded time: the race detector looks at
// processes in TestProcessesUnderFireLoseNothing.

package main

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestProcessesHoldOnOtherServers(t *testing.T) {
	seeds, orders, rate := 1, 80, 10
	if os.Getenv("BACKSTAY_LONG") == "1" {
		seeds, orders, rate = 5, 600, 20
	}
	for name, broker := range map[string]func(*testing.T) string{"NATS": natsServer, "RabbitMQ": rabbitServer} {
		t.Run(name+" and PostgreSQL", func(t *testing.T) {
			db, address := postgresURL(t), broker(t)
			for seed := range seeds {
				dir := t.TempDir()
				server, _ := serverFor(t, dir)
				g := siege{seed: seed + 1, orders: orders, rate: rate, args: []string{"-broker", address, "-db", db}}
				g.args = append(g.args, "-data", dir) // the last one counts
				_, log := g.hold(t)
				require.Contains(t, log, server.String())
				require.Empty(t, processesOf(t, dir))
				s := &shop{cfg: settings{data: dir}}
				require.NoError(t, servers[name].remove(t.Context(), address, s.prefix()))
			}
		})
	}
}

func TestAClusterOfBrokersMayLoseANode(t *testing.T) {
	orders, rate := 130, 10 // the first node goes after five to ten seconds
	if os.Getenv("BACKSTAY_LONG") == "1" {
		orders, rate = 2400, 20
	}
	_, log := siege{seed: 1, orders: orders, rate: rate, args: []string{"-nats-cluster", "3"}}.hold(t)
	require.Contains(t, log, "kill broker/")
}
