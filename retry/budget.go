package retry

import (
	"errors"
	"iter"
	"math"
	"sync/atomic"
	"time"

	"github.com/backstay-go/backstay/configdata"
)

// ErrBudget is the Stop of an [*Error] whose further attempts the [Budget] did not pay for.
var ErrBudget = errors.New("retry: the budget is spent")

// BudgetConfig is the data of a Budget: plain, comparable, JSON in snake_case. The zero BudgetConfig is valid and means the
// defaults. Hold it as a named field, never embed it, since its JSON methods would be promoted. Every field may be changed
// while running by [Budget.Reconfigure]; what is saved up survives, as far as the new Burst goes.
type BudgetConfig struct {
	// Name appears in metrics. Default "budget".
	Name string `json:"name"`
	// Ratio is how many retries one call that succeeds pays for. Default 0.2, at most 1; negative is off: only MinPerSecond
	// counts.
	Ratio float64 `json:"ratio"`
	// MinPerSecond is how many retries a second are paid for even if nothing succeeds, so that a service with few calls can
	// retry at all. Default 1, at most 1,000,000; negative is off.
	MinPerSecond float64 `json:"min_per_second"`
	// Burst is how many retries can be saved up. Default 100, at most 1,000,000; negative is refused. A new Budget starts
	// with so many.
	Burst int `json:"burst"`
}

// Validate reports every field that is out of range, or nil.
func (c BudgetConfig) Validate() error {
	f := configdata.Check("retry", c.Name)
	f.Require(c.Ratio <= 1, "Ratio", c.Ratio, "at most 1, 0 for the default, or negative for off")
	f.Require(c.MinPerSecond <= 1e6, "MinPerSecond", c.MinPerSecond, "at most 1000000, 0 for the default, or negative for off")
	f.Require(c.Burst >= 0 && c.Burst <= 1e6, "Burst", c.Burst, "from 1 to 1000000, or 0 for the default")
	return f.Err()
}

func (c BudgetConfig) withDefaults() BudgetConfig {
	if c.Name == "" {
		c.Name = "budget"
	}
	c.Ratio = configdata.Default(c.Ratio, 0.2)
	c.MinPerSecond = configdata.Default(c.MinPerSecond, 1)
	c.Burst = configdata.Default(c.Burst, 100)
	return c
}

// MarshalJSON writes the fields that are set; a negative one is "off".
func (c BudgetConfig) MarshalJSON() ([]byte, error) { return configdata.Marshal(c) }

// UnmarshalJSON reads a whole BudgetConfig and refuses unknown fields. It does not validate: call Validate.
func (c *BudgetConfig) UnmarshalJSON(data []byte) error { return configdata.Unmarshal(data, c) }

// Budget bounds the retries of all the retriers that share it by what succeeds: in any time t with n calls that succeed they
// make at most Ratio×n + MinPerSecond×t + Burst of them. Put one in front of each dependency, since retries are what keeps an
// overloaded one down. Make it with [NewBudget]; the zero value is not usable. It is safe for concurrent use, takes no lock,
// never blocks, starts no goroutine and needs no closing.
type Budget struct {
	cfg      atomic.Pointer[BudgetConfig]
	base     time.Time
	balance  atomic.Int64 // see oneRetry
	refilled atomic.Int64 // until when MinPerSecond was paid in, in nanoseconds since base
	spent    atomic.Int64
	refused  atomic.Int64
}

// oneRetry is in the unit of the balance, which is what MinPerSecond = 1 pays in a nanosecond.
const oneRetry = int64(time.Second)

// NewBudget returns a Budget that starts with Burst retries. It panics on a BudgetConfig that Validate rejects: call Validate
// first on input from outside.
func NewBudget(cfg BudgetConfig) *Budget {
	b := &Budget{base: time.Now()}
	if err := b.Reconfigure(cfg); err != nil {
		panic(err)
	}
	b.balance.Store(b.cfg.Load().capacity())
	return b
}

func (c *BudgetConfig) capacity() int64 { return int64(c.Burst) * oneRetry }

// deposit pays for a call that succeeded. While nothing fails the Budget is full, and this only looks.
func (b *Budget) deposit() {
	if b == nil {
		return
	}
	if cfg := b.cfg.Load(); cfg.Ratio > 0 {
		b.credit(cfg, int64(math.Round(cfg.Ratio*float64(oneRetry))))
	}
}

// credit adds up to the capacity.
func (b *Budget) credit(cfg *BudgetConfig, amount int64) {
	for {
		balance := b.balance.Load()
		next := min(balance+amount, cfg.capacity())
		if next == balance || b.balance.CompareAndSwap(balance, next) {
			return
		}
	}
}

// withdraw takes one retry, if there is one.
func (b *Budget) withdraw() bool {
	if b == nil {
		return true
	}
	b.refill()
	for {
		balance := b.balance.Load()
		if balance < oneRetry {
			b.refused.Add(1)
			return false
		}
		if b.balance.CompareAndSwap(balance, balance-oneRetry) {
			b.spent.Add(1)
			return true
		}
	}
}

// refill pays MinPerSecond for the time since the last refill, which one of several callers at once does for all.
func (b *Budget) refill() {
	cfg := b.cfg.Load()
	last, now := b.refilled.Load(), int64(time.Since(b.base))
	if now <= last || !b.refilled.CompareAndSwap(last, now) {
		return
	}
	earned := max(0, cfg.MinPerSecond) * float64(now-last)
	b.credit(cfg, int64(math.Min(earned, float64(cfg.capacity()))))
}

// giveBack returns what was taken for a retry that was not made.
func (b *Budget) giveBack() {
	if b == nil {
		return
	}
	b.spent.Add(-1)
	b.credit(b.cfg.Load(), oneRetry)
}

// Reconfigure replaces the BudgetConfig. It returns what Validate returns, and then changes nothing.
func (b *Budget) Reconfigure(cfg BudgetConfig) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	if b.cfg.Load() != nil {
		b.refill() // the time until now was under the old rate
	}
	cfg = cfg.withDefaults()
	b.cfg.Store(&cfg)
	b.credit(&cfg, 0)
	return nil
}

// Config returns the BudgetConfig in force, with defaults filled in.
func (b *Budget) Config() BudgetConfig { return *b.cfg.Load() }

// BudgetStats is a snapshot; Spent and Refused count since NewBudget.
type BudgetStats struct {
	Balance float64 // retries that could be made now
	Spent   int64   // retries paid for
	Refused int64   // retries that were not
}

// Stats returns the numbers of now. It never slows a call; fields are read one after the other.
func (b *Budget) Stats() BudgetStats {
	b.refill()
	return BudgetStats{Balance: float64(b.balance.Load()) / float64(oneRetry), Spent: b.spent.Load(), Refused: b.refused.Load()}
}

// Describe returns the kind "retry budget", the name and the BudgetConfig, for consoles and telemetry.
func (b *Budget) Describe() (kind, name string, config any) {
	cfg := b.Config()
	return "retry budget", cfg.Name, cfg
}

// Metrics yields the numbers of Stats by name.
func (b *Budget) Metrics() iter.Seq2[string, float64] {
	return func(yield func(string, float64) bool) {
		s := b.Stats()
		_ = yield("balance", s.Balance) &&
			yield("spent_total", float64(s.Spent)) &&
			yield("refused_total", float64(s.Refused))
	}
}
