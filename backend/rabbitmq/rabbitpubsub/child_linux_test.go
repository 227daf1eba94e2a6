package rabbitpubsub_test

import (
	"os/exec"
	"syscall"
)

// dieWithTest has the system kill the child when this process ends, however it ends.
func dieWithTest(child *exec.Cmd) {
	child.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
