package main

import (
	"bytes"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// One trace from the HTTP request through the outbox, the message and the saga, with its branches, to another service.
func TestOneTraceGoesThroughAll(t *testing.T) {
	defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), &out), &out)
	require.Equal(t, `customer (internal)
  POST (client)
    POST /orders/{id} (server)
      INSERT orders (client)
      create orders (producer)
        process orders (consumer)
          order prepare/bill do (internal)
          order prepare/pack do (internal)
            POST (client)
              POST /parcels (server)
          order ship do (internal)
            POST (client)
              POST /shipments (server)
        send orders (producer)
`, out.String())
}
