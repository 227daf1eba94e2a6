package tracecontext

import (
	"errors"
	"fmt"
	"strings"
)

const (
	// maxMembers is the most that a tracestate can have.
	maxMembers = 32
	// maxState is the longest tracestate that goes on untruncated, longMember the length beyond which members go first.
	maxState, longMember = 4096, 128
)

// checkState says what is wrong with a tracestate.
func checkState(s string) error {
	if strings.Count(s, ",") >= maxMembers {
		return fmt.Errorf("more than %d members", maxMembers)
	}
	seen := make(map[string]bool)
	for member := range strings.SplitSeq(s, ",") {
		member = strings.Trim(member, " \t")
		if member == "" {
			continue // allowed, since combined headers may have them
		}
		key, value, _ := strings.Cut(member, "=")
		if !isKey(key) {
			return fmt.Errorf("key %q is invalid", key)
		}
		if !isValue(value) {
			return fmt.Errorf("the value of %s is invalid", key)
		}
		if seen[key] {
			return fmt.Errorf("key %s is there twice", key)
		}
		seen[key] = true
	}
	if len(seen) == 0 {
		return errors.New("no member")
	}
	return nil
}

// isKey reports whether s is a key: a name, or a tenant and a system joined by '@'.
func isKey(s string) bool {
	tenant, system, multi := strings.Cut(s, "@")
	if !multi {
		return isName(s, 256) && isLetter(s[0])
	}
	return isName(tenant, 241) && isName(system, 14) && isLetter(system[0])
}

// isName reports whether s has 1 to limit characters of a key and begins with a letter or digit.
func isName(s string, limit int) bool {
	if len(s) == 0 || len(s) > limit || !isLetter(s[0]) && !isDigit(s[0]) {
		return false
	}
	for _, c := range []byte(s) {
		if !isLetter(c) && !isDigit(c) && strings.IndexByte("_-*/", c) < 0 {
			return false
		}
	}
	return true
}

// isValue reports whether s has 1 to 256 characters of a value and does not end with a space.
func isValue(s string) bool {
	if len(s) == 0 || len(s) > 256 || s[len(s)-1] == ' ' {
		return false
	}
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' || c == ',' || c == '=' {
			return false
		}
	}
	return true
}

func isLetter(c byte) bool { return 'a' <= c && c <= 'z' }
func isDigit(c byte) bool  { return '0' <= c && c <= '9' }

// truncate leaves out members of a valid tracestate that is too long.
func truncate(s string) string {
	if len(s) <= maxState {
		return s
	}
	var members []string
	size := -1 // there is one comma less than members
	for member := range strings.SplitSeq(s, ",") {
		if member = strings.Trim(member, " \t"); member != "" {
			members = append(members, member)
			size += len(member) + 1
		}
	}
	drop := func(i int) {
		size -= len(members[i]) + 1
		members = append(members[:i], members[i+1:]...)
	}
	for i := len(members) - 1; i >= 0 && size > maxState; i-- {
		if len(members[i]) > longMember {
			drop(i)
		}
	}
	for size > maxState {
		drop(len(members) - 1)
	}
	return strings.Join(members, ",")
}
