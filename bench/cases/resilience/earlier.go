package resilience

// earlier is what an earlier, independent run of the same cases found for the peers.
var earlier = map[string]string{
	"failsafe":  "pffppffffpffffppfffffffff",
	"gobreaker": "pp-pfpfpfff--------------",
	"sethvargo": "------------fppf---------",
	"avast":     "------------fppp---------",
	"backoff":   "------------ffpf---------",
	"xsync":     "-------------------p-----",
	"xtime":     "--------------------p----",
}

// explained says why a cell differs from what was found earlier.
var explained = map[string]string{
	"xtime T21": "the waiters of the earlier run had deadlines, and with those it passes here too; waiters that are cancelled give back " +
		"their reservations only as far as no later one was made (rate.Reservation.CancelAt)",
}
