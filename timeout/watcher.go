package timeout

// watcher is told when a callContext ends. Those of one context are a list, whose links are guarded by the context's mu and
// stay as they are once it is released.
type watcher struct {
	of         *callContext // nil when it watches none
	next, prev *watcher
	tell       func()
}

// join reports whether c will tell w: if it does not, c has ended.
func (w *watcher) join(c *callContext) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.released {
		return false
	}
	w.of, w.next = c, c.first
	if w.next != nil {
		w.next.prev = w
	}
	c.first = w
	return true
}

// leave reports whether it kept w from being told.
func (w *watcher) leave() bool {
	c := w.of
	if c == nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.released || w.tell == nil {
		return false
	}
	w.tell = nil
	if w.next != nil {
		w.next.prev = w.prev
	}
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		c.first = w.next
	}
	return true
}
