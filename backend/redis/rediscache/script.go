package rediscache

import (
	"crypto/sha1"
	"encoding/hex"
)

// script is a Lua program that Redis runs atomically on the value and the lease of one key: KEYS[1] and KEYS[2].
type script struct{ text, digest string }

func newScript(text string) *script {
	sum := sha1.Sum([]byte(text))
	return &script{text, hex.EncodeToString(sum[:])}
}

// SET comes before any other write: Redis lets a script that has begun to write go on beyond maxmemory.
var (
	// ARGV: the seen version, token, milliseconds. Answers with the remaining life and the value, or 1 for a grant,
	// or 0. A client that repeats the call because the answer was lost finds its own token.
	leaseScript = newScript(`local v = redis.pcall('GET', KEYS[1])
if type(v) == 'string' and string.sub(v, 2, 9) ~= ARGV[1] then
  return {redis.call('PTTL', KEYS[1]), v}
end
if redis.call('SET', KEYS[2], ARGV[2], 'NX', 'PX', ARGV[3]) or redis.call('GET', KEYS[2]) == ARGV[2] then
  return 1
end
return 0`)

	// ARGV: token, value (empty: none is kept), milliseconds. Answers 1 when it stored the value. In a repetition it
	// finds the value, which has a version of its own.
	fillScript = newScript(`if redis.call('GET', KEYS[2]) ~= ARGV[1] then
  if ARGV[2] ~= '' and redis.pcall('GET', KEYS[1]) == ARGV[2] then
    return 1
  end
  return 0
end
if ARGV[2] == '' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
redis.call('DEL', KEYS[2])
return 1`)

	// ARGV: value (empty: none is kept), milliseconds.
	setScript = newScript(`if ARGV[1] == '' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
redis.call('DEL', KEYS[2])
return 1`)

	// ARGV: token.
	releaseScript = newScript(`if redis.call('GET', KEYS[2]) == ARGV[1] then
  redis.call('DEL', KEYS[2])
end
return 1`)
)
