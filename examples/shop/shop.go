package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay/backend/sqlite"
	"github.com/backstay-go/backstay/console"
	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/sqloutbox"
	"github.com/backstay-go/backstay/pubsub"
	"github.com/backstay-go/backstay/saga"
	"github.com/backstay-go/backstay/saga/sqlsaga"
	"github.com/backstay-go/backstay/timeout"
)

// lease is how long what a killed shop held stays out of reach of the next one: sagas, outbox keys, messages.
const lease = 3 * time.Second

// durability is that of the broker with its defaults: what was committed survives the death of the process, at any moment,
// but the last of it may not survive a loss of power. For that, "full" here and SyncAlways at the broker go together.
var durability = sqlite.Config{Synchronous: "normal"}

// A shop is all services, their databases and the broker between them, in one process, or with -processes the one service
// of this process. They know each other's addresses and nothing else of each other.
type shop struct {
	cfg      settings
	products []product // to begin with
	post     *posting  // the one service that runs here; nil: all of them
	stderr   io.Writer
	fleet    *fleet // with -processes, in the process that starts the others

	dbs     databases
	dialect dialect
	// removeDatabases takes the shop's databases away from a server that others use as well; nil: they are files.
	removeDatabases func(context.Context) error
	place           string                      // where the databases are
	stores          map[string]*sqloutbox.Store // by service
	sagas           *sqlsaga.Store
	bus             *pubsub.Bus
	// removeEvents takes the shop's events away from a server that others use as well; nil: there is none.
	removeEvents func(context.Context) error
	http         *http.Client
	base         map[string][]string // URLs of the instances by service
	front        *server             // the gateway's, if it runs here
	public       string              // the URL that customers know
	shut         func() error        // takes no more requests; may be called more than once
	console      *console.Console    // with -serve

	bank        *bank
	stocktaking *absence
	gateway     *gateway
	catalogue   *catalogue
	teller      *bankClient
	runner      *saga.Runner
	relays      []*outbox.Relay
	inboxes     []*outbox.Inbox[*sql.Tx]
	connection  connection // with post
	listeners   []listener // as above

	mu        sync.Mutex
	consumers []*pubsub.Consumer

	redelivered atomic.Int64 // messages that a handler was given again
	settling    atomic.Bool

	alive     context.Context // its cause is why the shop broke down
	fail      context.CancelCauseFunc
	closers   []func() error // in the order of opening
	databases int            // how many of them there were when only the databases were open
}

// openShop starts everything in the order in which it depends on each other; close stops it in reverse.
func openShop(ctx context.Context, cfg settings, products []product, stderr io.Writer) (_ *shop, err error) {
	s := newShop(cfg)
	s.products, s.stderr = products, stderr
	starts := []func(context.Context) error{
		s.lock, s.openDatabases, s.openStores, s.startBroker, s.startBank, s.startServices, s.startMoving, s.startGateway,
	}
	if cfg.processes {
		starts = []func(context.Context) error{
			s.lock, s.openDatabases, s.openStores, s.stockShelves, s.startFleet, s.startBroker, s.openGroups, s.startBank, s.startProcesses,
		}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close(), s.tidy(ctx))
			if s.cfg.temporary && isUsage(err) && s.removeEvents != nil { // as the data
				err = errors.Join(err, s.removeEvents(context.WithoutCancel(ctx)))
			}
		}
	}()
	if err := s.open(ctx, starts...); err != nil {
		return nil, err
	}
	return s, nil
}

func newShop(cfg settings) *shop {
	s := &shop{cfg: cfg, stores: map[string]*sqloutbox.Store{}, base: map[string][]string{}}
	s.alive, s.fail = context.WithCancelCause(context.Background())
	return s
}

func (s *shop) open(ctx context.Context, starts ...func(context.Context) error) error {
	for _, start := range starts {
		if err := start(ctx); err != nil {
			return err
		}
	}
	return nil
}

// runs reports whether the service runs in this process.
func (s *shop) runs(service string) bool { return s.post == nil || s.post.Role == service }

func (s *shop) onClose(fn func() error) { s.closers = append(s.closers, fn) }

// close stops what runs and closes what is open, last first.
func (s *shop) close() error {
	defer s.fail(nil)
	return s.closeTo(0)
}

// tidy removes what a temporary shop has at a server of databases, once it is closed.
func (s *shop) tidy(ctx context.Context) error {
	if !s.cfg.temporary || s.removeDatabases == nil {
		return nil
	}
	return s.removeDatabases(context.WithoutCancel(ctx))
}

// closeTo leaves the first n open.
func (s *shop) closeTo(n int) error {
	var errs []error
	for last := len(s.closers) - 1; last >= n; last-- {
		errs = append(errs, s.closers[last]())
		s.closers = s.closers[:last]
	}
	return errors.Join(errs...)
}

// background runs something until the shop closes. When it ends in error the shop has broken down.
func (s *shop) background(name string, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		err := run(ctx)
		if err != nil {
			err = fmt.Errorf("%s: %w", name, err)
			s.fail(err)
		}
		done <- err
	}()
	s.onClose(func() error {
		cancel()
		return <-done
	})
}

// lock keeps a second shop out of the data folder: a write transaction that never ends, and that ends with the process
// however it dies.
func (s *shop) lock(ctx context.Context) error {
	db, err := sqlite.Open(filepath.Join(s.cfg.data, "lock.db"), durability)
	if err != nil {
		return usageError{fmt.Errorf("-data: %w: give a folder that can be written", err)}
	}
	s.onClose(db.Close)
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	s.onClose(conn.Close)
	if _, err := conn.ExecContext(ctx, `PRAGMA busy_timeout = 0`); err != nil {
		return err
	}
	if _, err := conn.ExecContext(ctx, `BEGIN IMMEDIATE`); err != nil {
		return usageError{fmt.Errorf("another shop is at work in %s: wait until it has ended, or give another folder with -data (%w)", s.cfg.data, err)}
	}
	s.onClose(func() error {
		_, err := conn.ExecContext(context.Background(), `ROLLBACK`)
		return err
	})
	return nil
}

// openDatabases opens the database of each service, in a file or at the server that the caller named.
func (s *shop) openDatabases(ctx context.Context) error {
	services := s.services()
	open := func(_ context.Context, name string) (*sql.DB, error) {
		return sqlite.Open(filepath.Join(s.cfg.data, name+".db"), durability)
	}
	s.dialect, s.place = onSQLite, s.cfg.data
	if s.cfg.db != "" {
		server, err := openPostgres(ctx, s.cfg.db, s.prefix())
		if err != nil {
			return err
		}
		if s.post != nil || s.cfg.processes {
			server.conns = processConns
		}
		open, s.dialect, s.place = server.open, onPostgreSQL, server.String()
		s.removeDatabases = func(ctx context.Context) error {
			var names []string
			for _, d := range services {
				names = append(names, d.name)
			}
			return server.drop(ctx, names)
		}
	}
	for _, d := range services {
		if !s.runs(d.name) {
			continue
		}
		db, err := open(ctx, d.name)
		if err != nil {
			return err
		}
		s.onClose(db.Close)
		*d.db = db
		if s.post != nil {
			continue // the process that started this one has made the tables
		}
		if _, err := db.ExecContext(ctx, d.schema); err != nil {
			return fmt.Errorf("the database of %s: %w", d.name, err)
		}
	}
	s.databases = len(s.closers)
	return nil
}

// A storage is one service's database.
type storage struct {
	name   string
	schema string
	db     **sql.DB
}

func (s *shop) services() []storage {
	return []storage{
		{"orders", ordersSchema, &s.dbs.orders},
		{"inventory", inventorySchema, &s.dbs.inventory},
		{"payments", paymentsSchema, &s.dbs.payments},
		{"shipping", shippingSchema, &s.dbs.shipping},
		{"views", viewsSchema, &s.dbs.views},
		{"bank", bankSchema, &s.dbs.bank},
		{"client", clientSchema, &s.dbs.client},
	}
}

// openStores puts outbox, inbox and sagas beside the tables of the services.
func (s *shop) openStores(ctx context.Context) (err error) {
	services := s.dbs.services()
	services["views"] = s.dbs.views
	for name, db := range services {
		if db == nil {
			continue
		}
		store, err := sqloutbox.New(db, s.dialect.outbox(), sqloutbox.Config{})
		if err != nil {
			return err
		}
		s.stores[name] = store
		if s.post != nil {
			continue
		}
		if err := store.Migrate(ctx); err != nil {
			return err
		}
	}
	if s.dbs.orders == nil {
		return nil
	}
	if s.sagas, err = sqlsaga.New(s.dbs.orders, s.dialect.sagas()); err != nil || s.post != nil {
		return err
	}
	return s.sagas.Migrate(ctx)
}

const anyPort = "127.0.0.1:0"

// serve starts an HTTP server that ends with the shop, and notes its address.
func (s *shop) serve(name, addr string, h http.Handler) (*server, error) {
	srv, err := listen(addr, h)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	s.onClose(srv.close)
	s.base[name] = []string{srv.base}
	return srv, nil
}

// startBank starts the outside world.
func (s *shop) startBank(context.Context) error {
	s.bank = newBank(s.dbs.bank, s.dialect, newFaults(s.cfg.seed, s.cfg.chaos))
	_, err := s.serve("bank", anyPort, s.bank)
	return err
}

// startServices starts the services and, for each that listens to events, its consumers.
func (s *shop) startServices(ctx context.Context) error {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 128
	s.http = &http.Client{Transport: transport}
	for _, service := range []struct {
		name  string
		start func(context.Context) error
	}{
		{topicInventory, s.startInventory},
		{topicPayments, s.startPayments},
		{topicShipping, s.startShipping},
		{topicOrders, s.startOrders},
		{"views", s.startViews},
	} {
		if !s.runs(service.name) {
			continue
		}
		if err := service.start(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *shop) startInventory(ctx context.Context) error {
	s.stocktaking = newAbsence(s.cfg.seed, s.cfg.chaos)
	i := &inventory{ledger: s.ledger(topicInventory), stocktaking: s.stocktaking}
	if err := i.stockProducts(ctx, s.products); err != nil {
		return err
	}
	return s.serveAs(topicInventory, i.handler())
}

func (s *shop) startPayments(context.Context) error {
	s.teller = newBankClient(s.base["bank"][0], s.http)
	p := &payments{ledger: s.ledger(topicPayments), bank: s.teller}
	return s.serveAs(topicPayments, p.handler())
}

func (s *shop) startShipping(ctx context.Context) error {
	p := &shipping{ledger: s.ledger(topicShipping), inbox: s.inbox(topicShipping), seed: s.cfg.seed, chaos: s.cfg.chaos}
	if err := s.serveAs(topicShipping, p.handler()); err != nil {
		return err
	}
	return s.consume(ctx, topicShipping, p.consumer())
}

func (s *shop) startOrders(context.Context) error {
	o := &orders{ledger: s.ledger(topicOrders), sagas: s.sagas}
	if err := s.setUpSagas(o); err != nil {
		return err
	}
	o.inventory, o.payments, o.shipping = s.peer(topicInventory), s.peer(topicPayments), s.peer(topicShipping)
	return s.serveAs(topicOrders, o.handler())
}

func (s *shop) startViews(ctx context.Context) error {
	v := &views{inbox: s.inbox("views"), dialect: s.dialect}
	return s.consume(ctx, "views", v.consumer())
}

// serveAs serves a service where the others look for it: at a port of its own, or at that which this process was given.
func (s *shop) serveAs(service string, h http.Handler) error {
	addr := anyPort
	if s.post != nil {
		addr = s.post.Listen
	}
	_, err := s.serve(service, addr, h)
	return err
}

// startMoving starts what moves events and sagas on, those of an earlier run first of all.
func (s *shop) startMoving(context.Context) error {
	// Before the servers close, or they would wait for connections that nobody uses.
	s.onClose(func() error { s.http.CloseIdleConnections(); return nil })
	for _, relay := range s.relays {
		s.background("relay of "+relay.Config().Name, relay.Run)
	}
	if s.runner != nil {
		s.background("sagas", s.runner.Run)
	}
	return nil
}

func (s *shop) startGateway(context.Context) (err error) {
	s.gateway = newGateway(s.http, s.base)
	s.catalogue = s.gateway.catalogue
	s.onClose(s.catalogue.Close)
	handler := s.gateway.handler()
	if s.cfg.serve {
		s.console = console.New(console.Config{Name: "shop"})
		handler = s.withConsole(handler, s.gateway)
	}
	if s.front, err = s.serve("gateway", s.cfg.addr, handler); err != nil {
		return usageError{fmt.Errorf("%w: give another address with -addr", err)}
	}
	s.public, s.shut = s.front.base, s.front.close
	if s.console != nil {
		s.front.RegisterOnShutdown(s.console.Close)
	}
	return nil
}

// ledger makes the outbox of a service and the relay that empties it.
func (s *shop) ledger(service string) ledger {
	relay := outbox.NewRelay(s.stores[service], s.publisher(), outbox.RelayConfig{Name: service, Lease: lease})
	s.relays = append(s.relays, relay)
	return newLedger(s.dbs.services()[service], s.dialect, service, s.stores[service], relay)
}

func (s *shop) inbox(service string) *outbox.Inbox[*sql.Tx] {
	in := outbox.NewInbox(s.stores[service], outbox.InboxConfig{Name: service})
	s.inboxes = append(s.inboxes, in)
	return in
}

// peer is a service as the sagas call it: an attempt is bounded, and the saga's own schedule repeats it.
func (s *shop) peer(service string) *peer {
	return newSpread(service, s.base[service], s.http, 5*time.Second, timeout.New(timeout.Config{Name: service, After: 10 * time.Second})).peer
}

func (s *shop) setUpSagas(o *orders) (err error) {
	if err := o.define(); err != nil {
		return err
	}
	concurrency := 128
	if s.post != nil {
		concurrency = 32 // the others have as many, and a process has fewer connections
	}
	s.runner, err = saga.NewRunner(s.sagas, saga.Config{Name: topicOrders, Concurrency: concurrency, Lease: lease}, o.placing, o.cancelling)
	o.runner = s.runner
	return err
}
