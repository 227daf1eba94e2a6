package main

import (
	"os/exec"
	"syscall"
)

// canPause: a paused process cannot notice that the one which paused it has died, but the system ends it all the same.
const canPause = true

// dieWithParent has the system kill the process when this one ends, however it ends.
func dieWithParent(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }

func (c *process) pause() { _ = c.cmd.Process.Signal(syscall.SIGSTOP) } // it may have ended

func (c *process) resume() { _ = c.cmd.Process.Signal(syscall.SIGCONT) }
