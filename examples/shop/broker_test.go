package main

import (
	"bytes"
	"net"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
)

// running is the address of a broker that others use as well, from the environment or the standard one.
func running(t *testing.T, variable, standard, start string) string {
	t.Helper()
	address := os.Getenv(variable)
	if address == "" {
		address = standard
	}
	u, err := url.Parse(address)
	require.NoError(t, err)
	conn, err := net.DialTimeout("tcp", u.Host, 10*time.Second)
	if err == nil {
		require.NoError(t, conn.Close())
		return address
	}
	reason := variable + ": nobody listens on " + u.Host + ": " + start
	if os.Getenv("BACKSTAY_REQUIRE_SERVICES") == "1" {
		t.Fatal(reason)
	}
	t.Skip(reason)
	return ""
}

func natsServer(t *testing.T) string {
	return running(t, "BACKSTAY_NATS_URL", "nats://127.0.0.1:4222", "start it with nats-server -js")
}

func TestTheShopHoldsOnAnyBroker(t *testing.T) {
	for name, address := range map[string]func(*testing.T) string{
		"memory": func(*testing.T) string { return "mem:" },
		"NATS":   natsServer,
	} {
		t.Run(name, func(t *testing.T) {
			r, code := runJSON(t.Context(), t, "-orders", "100", "-broker", address(t))
			requireProof(t, r)
			require.Zero(t, code)
			require.Positive(t, r.Redeliveries)
		})
	}
}

func TestNothingIsLeftBehindOnNATS(t *testing.T) {
	conn, err := nats.Connect(natsServer(t))
	require.NoError(t, err)
	defer conn.Close()
	js, err := jetstream.New(conn)
	require.NoError(t, err)
	data := t.TempDir()
	kept := &shop{cfg: settings{data: data}}
	of := func() (mine []string) {
		names := js.StreamNames(t.Context())
		for name := range names.Name() {
			if strings.HasPrefix(name, kept.prefix()) {
				mine = append(mine, name)
			}
		}
		require.NoError(t, names.Err())
		return mine
	}
	r, _ := runJSON(t.Context(), t, "-orders", "10", "-chaos=false", "-data", data, "-broker", natsServer(t))
	requireProof(t, r)
	require.NotEmpty(t, of(), "the data stays, and with it the events")
	require.NoError(t, removeStreams(t.Context(), natsServer(t), kept.prefix()))
	require.Empty(t, of())
}

func TestWrongBrokersAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"unknown":          {[]string{"-broker", "ftp://x"}, `begins with "ftp"`},
		"empty":            {[]string{"-broker", ""}, `begins with ""`},
		"memory with data": {[]string{"-broker", "mem:", "-data", t.TempDir()}, "leave out -data"},
		"away":             {[]string{"-broker", "nats://user:secret@127.0.0.1:1"}, "start the broker"},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			require.Equal(t, 2, run(t.Context(), c.args, &stdout, &stderr))
			require.Contains(t, stderr.String(), c.says)
			require.NotContains(t, stderr.String(), "secret")
		})
	}
}
