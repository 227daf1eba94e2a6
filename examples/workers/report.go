package main

import (
	"fmt"
	"io"
)

// note counts a job that a worker says it has done, and in which attempt.
func (c *crew) note(job string, attempt int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done[job]++
	if c.done[job] > 1 {
		return
	}
	if attempt > 1 {
		c.rescued++
	}
	if len(c.done) == c.want {
		close(c.all)
	}
}

func (c *crew) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.done)
}

// report says how many jobs were done and how many of them again. A job that was not done is lost.
func (c *crew) report(out io.Writer, kills int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	repeats := 0
	for _, n := range c.done {
		if n > 1 {
			repeats++
		}
	}
	fmt.Fprintf(out, "%d workers were killed; of %d jobs %d were done, %d of them in a later attempt, and %d more than once\n",
		kills, c.want, len(c.done), c.rescued, repeats)
	if lost := c.want - len(c.done); lost > 0 {
		return fmt.Errorf("%d jobs are lost", lost)
	}
	return nil
}
