//go:build unix

package natsembed

import (
	"errors"
	"os"
	"syscall"
)

// lock holds path until the returned function is called or the process ends, however it ends. Two servers on one
// directory would destroy each other's files, and the NATS server itself does not look.
func lock(path string) (unlock func() error, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = ErrInUse
		}
		return nil, errors.Join(err, f.Close())
	}
	return f.Close, nil
}
