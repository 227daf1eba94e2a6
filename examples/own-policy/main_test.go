package main

import (
	"bytes"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/backstay-go/backstay/policytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTheStory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		require.NoError(t, run(t.Context(), &out), &out)
		require.Equal(t, `faults: hours "customs": Config.open is 25h0m0s: it must be at least 0 and less than 24h
hours "customs": Config.close is -1h0m0s: it must be after open and at most 24h
at  8 o'clock: hours "customs": closed, after 0 attempts
at 10 o'clock: tea is declared, after 2 attempts
at 18 o'clock: hours "customs": closed, after 0 attempts
`, out.String())
	})
}

// Hours that are open keep the contract of any policy.
func TestHoursKeepTheContractOfAPolicy(t *testing.T) {
	policytest.Run(t, func() policytest.Policy { return &Hours{now: func() time.Duration { return time.Hour }} })
}
