package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// A process is one life of one instance.
type process struct {
	cmd    *exec.Cmd
	stdin  io.Closer
	stderr tail
	open   chan struct{} // closed when it says that it is open
	ended  chan struct{} // closed when it is gone and waited for, and nothing of it is left
	err    error         // why it ended, once ended is closed

	mu     sync.Mutex
	counts result
}

// startProcess starts this program again, in the role of the posting. It dies with this process, however that ends.
func startProcess(p *posting) (*process, error) {
	line, err := p.line()
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &process{open: make(chan struct{}), ended: make(chan struct{})}
	c.cmd = exec.Command(self, p.asProcess()...) //nolint:noctx // it ends when its standard input does
	c.cmd.Stderr = &c.stderr
	dieWithParent(c.cmd)
	stdin, err := c.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", p.Name, err)
	}
	c.stdin = stdin
	go func() {
		defer close(c.ended)
		if _, err := stdin.Write(line); err == nil { // one that has died at once says so below
			c.listen(stdout)
		}
		c.err = c.cmd.Wait()
		_ = stdin.Close()
	}()
	return c, nil
}

// listen hears what the process says, until it says no more.
func (c *process) listen(stdout io.Reader) {
	opened := false
	for lines := json.NewDecoder(stdout); ; {
		var w word
		if err := lines.Decode(&w); err != nil {
			_, _ = io.Copy(io.Discard, stdout)
			return
		}
		c.mu.Lock()
		c.counts = w.Counts
		c.mu.Unlock()
		if !opened {
			opened = true
			close(c.open)
		}
	}
}

func (c *process) counted() result {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts
}

func (c *process) hasOpened() bool { return isClosed(c.open) }
func (c *process) hasEnded() bool  { return isClosed(c.ended) }

func isClosed(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}

// kill ends it by SIGKILL: it cannot tidy up.
func (c *process) kill() { _ = c.cmd.Process.Kill() } // it may have ended by itself

// stop has it end in order, and kills it when it does not within the patience.
func (c *process) stop(patience time.Duration) error {
	_ = c.stdin.Close()
	select {
	case <-c.ended:
	case <-time.After(patience):
		_ = c.cmd.Process.Signal(syscall.SIGQUIT) // it says where it hangs
		select {
		case <-c.ended:
		case <-time.After(time.Second):
			c.kill()
			<-c.ended
		}
		return fmt.Errorf("it did not end within %v: %s", patience, c.stderr.String())
	}
	if c.err != nil {
		return fmt.Errorf("%w: %s", c.err, c.stderr.String())
	}
	return nil
}

// A tail keeps the end of what is written to it. Safe for concurrent use.
type tail struct {
	mu   sync.Mutex
	text bytes.Buffer
}

const tailLength = 16 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text.Write(b)
	if over := t.text.Len() - tailLength; over > 0 {
		t.text.Next(over)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.String()
}
