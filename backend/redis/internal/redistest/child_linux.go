package redistest

import (
	"os/exec"
	"syscall"
)

// endWithParent has the kernel kill the child when the test's process ends, however it ends.
func endWithParent(child *exec.Cmd) {
	child.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
