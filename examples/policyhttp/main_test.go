package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTheStory(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, run(t.Context(), &out), &out)
	require.Regexp(t, `^GET, the server fails twice:             200 done
POST, the server fails twice:            503 try later
POST with a key, it fails twice:         200 done
a host that is down:                     503 try later
once more, and its breaker opens:        503 try later
once more:                               not sent
another host meanwhile:                  200 done
a server with a rate limit:              200 done
too soon after:                          429 Too Many Requests, come back in \d+ s
$`, out.String())
}
