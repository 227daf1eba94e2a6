package pubsub

import "time"

// To wake another worker costs about as much as some thousand instructions. A handler that is done sooner is quicker than
// the help, so while handlers are quick one worker handles what there is, receives again and passes its verdicts on
// together. Because any handler may turn out to be slow, that goes on under watch: when for watchEvery no worker has
// finished anything, the others are woken, the verdicts are passed on, and handlers are slow until proven quick. So a
// message, a free worker or a verdict waits at most twice as long as watchEvery behind a handler that used to be quick.
//
// The watch goes on for a while when nobody is busy: to set its timer would delay the next message, if that is alone, by
// as much as the rest of its way through this package.
const (
	watchEvery = time.Millisecond
	quickTime  = 5 * time.Microsecond
	quickCount = 8 // quick handlings in a row, slow ones halving the count
	watchIdle  = 8 // looks in a row at nobody, after which the watch ends
)

// pace knows whether handlers are quick. It is guarded by the consumer's mutex.
type pace struct {
	count int
	steps uint64 // handlings that ended
	seen  uint64 // steps when the watch last looked
	timer *time.Timer
	armed bool
	idle  int // times in a row that it found nobody busy
}

func (p *pace) quick() bool { return p.count >= quickCount }

// note takes down how long a handling took.
func (p *pace) note(took time.Duration) {
	if took > quickTime {
		p.count /= 2
		return
	}
	p.count = min(p.count+1, 4*quickCount)
}

func (p *pace) stop() {
	p.count = 0
	if p.timer != nil {
		p.timer.Stop()
	}
}

// share has others do what a worker leaves that turns to its handler: at once, or if it is not back soon.
func (c *Consumer) share() {
	if c.pace.quick() {
		c.watch()
		return
	}
	c.stir()
}

// watch sets the timer, unless it runs.
func (c *Consumer) watch() {
	p := &c.pace
	switch {
	case !p.armed:
		c.keepWatch()
	case p.idle > 0:
		p.seen = p.steps - 1 // a whole round for a handling that begins between two looks
	}
	p.idle = 0
}

// keepWatch sets it.
func (c *Consumer) keepWatch() {
	p := &c.pace
	p.armed, p.seen = true, p.steps
	if p.timer == nil {
		p.timer = time.AfterFunc(watchEvery, c.lookAfter)
		return
	}
	p.timer.Reset(watchEvery)
}

// lookAfter is called by the timer.
func (c *Consumer) lookAfter() {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := &c.pace
	p.armed = false
	switch {
	case c.draining:
	case c.busy == 0:
		if p.idle++; p.idle < watchIdle {
			c.keepWatch()
		}
	case p.steps != p.seen:
		c.watch()
	default:
		p.count = 0
		c.passVerdicts()
		c.stir()
	}
}
