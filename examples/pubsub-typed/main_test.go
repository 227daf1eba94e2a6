package main

import (
	"bytes"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTheStory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		require.NoError(t, run(t.Context(), &out), &out)
		require.ElementsMatch(t, []string{
			"billed o-1: 420 pence; trace 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
			`refused after 1 attempt: pubsub: topic "orders.placed": schema version "1": this topic has "2"`,
			"billed o-3: 99 pence; trace none",
		}, strings.Split(strings.TrimSpace(out.String()), "\n"))
	})
}
