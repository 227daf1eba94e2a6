package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
)

const maxInstances = 8

func checkProcesses(cfg settings, given map[string]bool) error {
	scheme, _, _ := strings.Cut(cfg.broker, ":")
	switch {
	case !cfg.processes && given["instances"]:
		return errors.New("-instances is only for -processes")
	case !cfg.processes && given["nats-cluster"]:
		return errors.New("-nats-cluster is only for -processes")
	case !cfg.processes:
		return nil
	case cfg.serve:
		return errors.New("-serve shows one process: leave it out, or -processes")
	case scheme == "mem":
		return errors.New("-broker mem: reaches one process: leave it out, or -processes")
	case cfg.instances < 1 || cfg.instances > maxInstances:
		return fmt.Errorf("-instances is %d: it must be 1 to %d", cfg.instances, maxInstances)
	case cfg.cluster != 0 && cfg.cluster != clusterSize:
		return fmt.Errorf("-nats-cluster is %d: it must be %d, or 0 for a single node", cfg.cluster, clusterSize)
	case cfg.cluster != 0 && cfg.broker != "":
		return errors.New("-nats-cluster is a broker of the shop's own: leave it out, or -broker")
	}
	return nil
}

// served are the services that have processes of their own, in the order in which they are started; views takes no requests.
var served = []string{topicInventory, topicPayments, topicShipping, "views", topicOrders}

// stockShelves puts the products on the shelves before any process of inventory is there.
func (s *shop) stockShelves(ctx context.Context) error {
	i := &inventory{ledger: ledger{db: s.dbs.inventory, dialect: s.dialect}}
	return i.stockProducts(ctx, s.products)
}

// startFleet starts the shop's own broker, if it has to have one.
func (s *shop) startFleet(ctx context.Context) error {
	s.fleet = newFleet(func(err error) { s.fail(err) }, s.stderr)
	if s.cfg.broker != "" {
		return nil
	}
	s.cfg.events = embeddedPrefix
	s.onClose(func() error { return s.fleet.callIn(brokerRole) })
	postings, err := s.nodes()
	if err != nil {
		return err
	}
	var urls []string
	for _, p := range postings {
		urls = append(urls, "nats://"+p.Listen)
		if err := s.fleet.begin(p); err != nil {
			return err
		}
	}
	s.cfg.broker = strings.Join(urls, ",")
	if err := s.fleet.await(ctx); err != nil {
		return err
	}
	if s.cfg.cluster > 0 {
		s.cfg.replicas = clusterSize
		return s.awaitCluster(ctx)
	}
	return nil
}

// nodes are the processes of the shop's own broker.
func (s *shop) nodes() (postings []*posting, err error) {
	var routes []string
	for i := range max(1, s.cfg.cluster) {
		p := &posting{Role: brokerRole, Name: instanceName(brokerRole, i), Data: s.cfg.data}
		if p.Listen, err = steadyAddress(); err != nil {
			return nil, err
		}
		if s.cfg.cluster > 0 {
			p.Node = &node{Name: "node" + strconv.Itoa(i+1)}
			if p.Node.Listen, err = steadyAddress(); err != nil {
				return nil, err
			}
			routes = append(routes, p.Node.Listen)
		}
		postings = append(postings, p)
	}
	for _, p := range postings {
		if p.Node != nil {
			p.Node.Routes = routes
		}
	}
	return postings, nil
}

func instanceName(role string, i int) string { return role + "/" + strconv.Itoa(i+1) }

// openGroups makes sure that every group stands before the first event is published.
func (s *shop) openGroups(ctx context.Context) error {
	for group := range readers {
		for _, topic := range readers[group] {
			c, err := s.bus.Open(ctx, s.subscription(topic, group))
			if err != nil {
				return err
			}
			if err := c.Close(); err != nil {
				return err
			}
		}
	}
	return nil
}

// startProcesses starts the services and the gateway, with a link to each and from each to the broker and the database.
func (s *shop) startProcesses(ctx context.Context) error {
	s.onClose(s.fleet.cabling.close)
	s.onClose(func() error { return errors.Join(s.fleet.callIn(gatewayRole), s.fleet.callIn(served...)) })
	var postings []*posting
	for _, role := range served {
		for i := range s.cfg.instances {
			p, err := s.posting(role, i)
			if err != nil {
				return err
			}
			postings = append(postings, p)
		}
	}
	gate, err := s.posting(gatewayRole, 0)
	if err != nil {
		return err
	}
	for _, p := range append(postings, gate) {
		p.Base = s.base // by now it names all
		if err := s.fleet.begin(p); err != nil {
			return err
		}
	}
	if err := s.fleet.await(ctx); err != nil {
		return err
	}
	s.public = s.base[gatewayRole][0]
	d := s.direct()
	s.shut = d.calm
	s.onClose(d.calm)
	return nil
}

// posting makes the posting of an instance, and lays its links.
func (s *shop) posting(role string, i int) (p *posting, err error) {
	p = &posting{
		Role: role, Name: instanceName(role, i), Data: s.cfg.data, Seed: s.cfg.seed, Chaos: s.cfg.chaos,
		Prefix: s.eventPrefix(), Replicas: s.cfg.replicas,
	}
	if role != "views" { // which takes no requests
		if p.Listen, err = steadyAddress(); err != nil {
			return nil, err
		}
		from, err := s.fleet.cabling.lay(p.Name, p.Listen)
		if err != nil {
			return nil, err
		}
		s.base[role] = append(s.base[role], "http://"+from)
	}
	if role == gatewayRole {
		return p, nil
	}
	if p.Broker, err = s.fleet.cabling.layURL(p.Name+" to the broker", s.cfg.broker); err != nil {
		return nil, err
	}
	p.DB, err = s.fleet.cabling.layURL(p.Name+" to the database", s.cfg.db)
	return p, err
}

// standardPorts are those that a URL need not name.
var standardPorts = map[string]string{"nats": "4222", "amqp": "5672", "redis": "6379", "postgres": "5432", "postgresql": "5432"}

// layURL is lay for a server at a URL. One that is not at a single plain TCP address is reached directly: several servers find
// each other, and encryption asks for the server's name.
func (c *cabling) layURL(name, to string) (string, error) {
	u, err := url.Parse(to)
	if err != nil || u.Hostname() == "" || strings.Contains(u.Host, ",") || strings.Contains(to, "://") && strings.Count(to, "://") > 1 ||
		standardPorts[u.Scheme] == "" || strings.HasPrefix(u.Query().Get("sslmode"), "verify") || u.Query().Has("host") {
		return to, nil //nolint:nilerr // whoever opens it says what is wrong with it
	}
	port := u.Port()
	if port == "" {
		port = standardPorts[u.Scheme]
	}
	u.Host, err = c.lay(name, net.JoinHostPort(u.Hostname(), port))
	return u.String(), err
}
