package redistest

import (
	"os/exec"
	"syscall"
)

// EndWithParent has the kernel kill the child when the test's process ends, however it ends.
func EndWithParent(child *exec.Cmd) {
	child.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
