package natspubsub_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/backstay-go/backstay/backend/nats/natspubsub"
	"github.com/backstay-go/backstay/pubsub"
)

// clusterNode tells the test binary to be one server of a cluster: its index, a comma, the directory, and then the
// ports for clients and for the other servers, of all nodes.
const clusterNode = "BACKSTAY_NATS_NODE"

const clusterTimeout = 2 * time.Second

func beNode(spec string) {
	err := func() error {
		f := strings.Split(spec, ",")
		i, err := strconv.Atoi(f[0])
		if err != nil {
			return err
		}
		var ports []int
		var routes []string
		for _, text := range f[2:] {
			port, err := strconv.Atoi(text)
			if err != nil {
				return err
			}
			ports = append(ports, port)
		}
		for _, port := range ports[3:] {
			routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", port))
		}
		s, err := server.NewServer(&server.Options{
			ServerName: "node" + f[0], Host: "127.0.0.1", Port: ports[i], JetStream: true,
			StoreDir: filepath.Join(f[1], f[0]), Routes: server.RoutesFromStr(strings.Join(routes, ",")),
			Cluster: server.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: ports[3+i]},
		})
		if err != nil {
			return err
		}
		s.Start()
		s.WaitForShutdown()
		return errors.New("the server has stopped")
	}()
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// cluster is three servers, each a process.
type cluster struct {
	t     *testing.T
	spec  string
	ports []int
	nodes [3]*exec.Cmd
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	c := &cluster{t: t, spec: t.TempDir()}
	for len(c.ports) < 6 {
		port := freePort(t)
		if slices.Contains(c.ports, port) {
			continue
		}
		c.ports = append(c.ports, port)
		c.spec += "," + strconv.Itoa(port)
	}
	t.Cleanup(func() {
		for i := range c.nodes {
			if c.nodes[i] != nil {
				c.kill(i)
			}
		}
	})
	return c
}

func (c *cluster) start(i int) {
	c.t.Helper()
	c.nodes[i] = exec.Command(os.Args[0])
	c.nodes[i].Env = append(os.Environ(), fmt.Sprintf("%s=%d,%s", clusterNode, i, c.spec))
	c.nodes[i].Stderr = os.Stderr
	dieWithTest(c.nodes[i])
	require.NoError(c.t, c.nodes[i].Start())
}

func (c *cluster) kill(i int) {
	_ = c.nodes[i].Process.Kill()
	_ = c.nodes[i].Wait()
}

func (c *cluster) url() string {
	return fmt.Sprintf("nats://127.0.0.1:%d,nats://127.0.0.1:%d,nats://127.0.0.1:%d", c.ports[0], c.ports[1], c.ports[2])
}

// open waits until the cluster has leaders and keeps three copies.
func (c *cluster) open() (d *natspubsub.Driver) {
	c.t.Helper()
	cfg := natspubsub.Config{Prefix: "p", Replicas: 3, PublishTimeout: clusterTimeout}
	require.Eventually(c.t, func() bool {
		ctx, cancel := context.WithTimeout(c.t.Context(), 5*time.Second)
		defer cancel()
		driver, err := natspubsub.Open(ctx, c.url(), cfg, nats.ReconnectWait(50*time.Millisecond))
		if err != nil {
			return false
		}
		if driver.Publish(ctx, []pubsub.Message{message("first", "")}) != nil {
			_ = driver.Close()
			return false
		}
		d = driver
		return true
	}, patience, 100*time.Millisecond)
	return d
}

// replicas waits until the server that leads the topic sees all copies up to date, or one of them gone.
func (c *cluster) replicas(js jetstream.JetStream, gone bool) {
	c.t.Helper()
	require.Eventually(c.t, func() bool {
		ctx, cancel := context.WithTimeout(c.t.Context(), 2*time.Second) // the server asked may just have gone
		defer cancel()
		s, err := js.Stream(ctx, "p~t")
		if err != nil || s.CachedInfo().Cluster == nil || s.CachedInfo().Cluster.Leader == "" {
			return false
		}
		replicas := s.CachedInfo().Cluster.Replicas
		return len(replicas) == 2 && gone == slices.ContainsFunc(replicas, func(p *jetstream.PeerInfo) bool {
			return p.Offline || !p.Current
		})
	}, patience, 100*time.Millisecond, "gone: %v", gone)
}

// One server after the other is killed and started again, under load: three copies lose nothing that was acknowledged.
func TestGuaranteeClusterLosesNothing(t *testing.T) {
	t.Parallel()
	kills, every := 3, time.Duration(0)
	if long() {
		kills, every = 60, 10*time.Second
	}
	c := newCluster(t)
	for i := range c.nodes {
		c.start(i)
	}
	d := c.open()
	defer func() { require.NoError(t, d.Close()) }()
	conn, err := insist(func() (*nats.Conn, error) {
		return nats.Connect(c.url(), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	})
	require.NoError(t, err)
	defer conn.Close()
	js, err := jetstream.New(conn)
	require.NoError(t, err)
	c.replicas(js, false)
	tr := startTraffic(t, d, d, false)
	for i := range kills {
		next := time.After(every)
		tr.more(t, 100)
		c.kill(i % 3)
		tr.struck++
		c.replicas(js, true)
		tr.more(t, 100)
		c.start(i % 3)
		c.replicas(js, false) // it catches up before the next one goes
		<-next
	}
	tr.more(t, 100)
	tr.finish(t)
	require.Less(t, time.Duration(tr.slowest.Load()), clusterTimeout+10*time.Second)
}
