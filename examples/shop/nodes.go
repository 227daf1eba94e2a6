package main

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"github.com/backstay-go/backstay/backend/nats/natsembed"
)

// clusterSize is how many nodes a cluster has: with each message on three, one may be gone at any time.
const clusterSize = 3

// A node is a NATS server that is one of several, each a process.
type node struct {
	Name   string   `json:"name"`
	Routes []string `json:"routes"` // host:port of all, where they meet each other
	Listen string   `json:"listen"` // of these its own
}

// startNode makes this process a broker: JetStream that others reach by TCP.
func (s *shop) startNode(context.Context) error {
	if s.post.Node != nil {
		return s.startClusterNode(s.post.Node)
	}
	broker, err := natsembed.Start(natsembed.Config{Dir: filepath.Join(s.cfg.data, "jetstream"), Listen: s.post.Listen})
	if err != nil {
		return err
	}
	s.onClose(broker.Close)
	return nil
}

func (s *shop) startClusterNode(n *node) error {
	clients, err := hostPort(s.post.Listen)
	if err != nil {
		return err
	}
	others, err := hostPort(n.Listen)
	if err != nil {
		return err
	}
	broker, err := natsserver.NewServer(&natsserver.Options{
		ServerName: n.Name, Host: clients.host, Port: clients.port, JetStream: true, NoSigs: true, NoLog: true,
		StoreDir: filepath.Join(s.cfg.data, "jetstream-"+n.Name),
		Routes:   natsserver.RoutesFromStr("nats://" + strings.Join(n.Routes, ",nats://")),
		Cluster:  natsserver.ClusterOpts{Name: "shop", Host: others.host, Port: others.port},
	})
	if err != nil {
		return err
	}
	broker.Start()
	s.onClose(func() error {
		broker.Shutdown()
		broker.WaitForShutdown()
		return nil
	})
	if !broker.ReadyForConnections(openingTime) {
		return fmt.Errorf("%s: %w", s.post.Name, errNeverOpen)
	}
	return nil
}

type address struct {
	host string
	port int
}

func hostPort(text string) (a address, err error) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return a, err
	}
	a.host = host
	a.port, err = strconv.Atoi(port)
	return a, err
}

// awaitCluster waits until the cluster keeps what it is given: it has to choose its leaders first.
func (s *shop) awaitCluster(ctx context.Context) error {
	for {
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		b, err := openNATS(attempt, s, s.cfg.broker)
		cancel()
		if err == nil {
			return b.driver.Close()
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}
