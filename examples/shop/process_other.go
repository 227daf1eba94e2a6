//go:build !linux

package main

import "os/exec"

// canPause: nothing would end a paused process when the one that paused it dies, so that none is paused here.
const canPause = false

// dieWithParent does nothing: a process notices that its standard input ends.
func dieWithParent(*exec.Cmd) {}

func (c *process) pause() {}

func (c *process) resume() {}
