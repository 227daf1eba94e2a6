package main

import (
	"bytes"
	"regexp"
	"strconv"
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
		shares := regexp.MustCompile(`billing: anna handled (\d+) orders, ben (\d+)\nmail:    cleo handled 30\neach order`).FindStringSubmatch(out.String())
		require.Len(t, shares, 3, &out)
		anna, err := strconv.Atoi(shares[1])
		require.NoError(t, err)
		ben, err := strconv.Atoi(shares[2])
		require.NoError(t, err)
		require.Equal(t, orders, anna+ben)
	})
}

func TestAStoryThatIsNotTrueIsAnError(t *testing.T) {
	all := map[string]int{}
	for i := range orders {
		all["order-"+strconv.Itoa(100 + i)[1:]] = 1
	}
	lacking := map[string]int{"order-07": 1}
	told := &tally{handled: map[string]map[string]int{"billing/anna": all, "billing/ben": lacking, "mail/cleo": all}}
	require.EqualError(t, told.report(new(bytes.Buffer)), "order-07 was billed 2 times and mailed 1 times")
	told.handled["billing/anna"], told.handled["billing/ben"] = lacking, nil
	require.EqualError(t, told.report(new(bytes.Buffer)), "a member of billing had nothing to do")
}
