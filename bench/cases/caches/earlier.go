package caches

// earlier is what an earlier, independent run of the same cases found for the peers.
var earlier = map[string]string{
	"otter":      "pppppppp-fp----",
	"theine":     "pppffpp---f----",
	"sturdyc":    "pfffpfff-pp--p-",
	"lru":        "pffffff---p----",
	"ttlcache":   "pf-ffff---p----",
	"groupcache": "p-f-f----------",
}

// explained says why a cell differs from what was found earlier.
var explained = map[string]string{
	"theine C02": manyOrNone,
	"theine C05": "it depends on the run: waiters that share the call of the one who led panic with it; those that still wait for the lock " +
		"load again and get the value",
	"sturdyc C02":  manyOrNone,
	"ttlcache C02": manyOrNone,
	"lru C02":      "written as it should be: it looks into the cache again inside the flight",
}

const manyOrNone = "the gap is there, but how many callers fall into it depends on the run"
