package redispubsub

import (
	"context"

	"github.com/redis/rueidis"
)

// Scripts run on the server, atomically and by its clock. All keys of a call are of one topic, hence in one slot.

// luaNow is the head of scripts that need the time, in milliseconds.
const luaNow = `local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
`

// luaGroup finds a group of a stream: its last ID and the number of pending entries. It is an error if there is none.
const luaGroup = `local function find(stream, group)
  local all = redis.pcall('XINFO', 'GROUPS', stream)
  for _, g in ipairs(all.err and {} or all) do
    local f = {}
    for i = 1, #g, 2 do f[g[i]] = g[i + 1] end
    if f['name'] == group then return f end
  end
  return nil
end
local gone = redis.error_reply('NOGROUP the group is not known here')
`

var (
	// topicScript KEYS: meta. ARGV: lanes. Answers with the number of lanes that the topic has.
	topicScript = rueidis.NewLuaScript(`redis.call('HSETNX', KEYS[1], 'lanes', ARGV[1])
return redis.call('HGET', KEYS[1], 'lanes')`)

	// openScript KEYS: meta, present, members, state, lanes… ARGV: group, mode, start, lease. It makes the group, and makes
	// anew a temporary one that nobody holds. Answers with the mode that the group has.
	openScript = rueidis.NewLuaScript(luaNow + `local group, mode = ARGV[1], ARGV[2]
local field = 'group:' .. group
local found = redis.call('HGET', KEYS[1], field)
if found and string.sub(found, 1, 4) == 'temp' and redis.call('ZCOUNT', KEYS[2], now, '+inf') == 0 then
  redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
  redis.call('HDEL', KEYS[1], field, 'lease:' .. group)
  for i = 5, #KEYS do redis.pcall('XGROUP', 'DESTROY', KEYS[i], group) end
  found = false
end
if found and found ~= mode then return found end
for i = 5, #KEYS do
  local made = redis.pcall('XGROUP', 'CREATE', KEYS[i], group, ARGV[3], 'MKSTREAM')
  if made.err and string.sub(made.err, 1, 9) ~= 'BUSYGROUP' then return redis.error_reply(made.err) end
end
redis.call('HSET', KEYS[1], field, mode)
local lease = tonumber(redis.call('HGET', KEYS[1], 'lease:' .. group) or 0)
redis.call('HSET', KEYS[1], 'lease:' .. group, math.max(lease, tonumber(ARGV[4])))
return mode`)

	// beatScript KEYS: meta, members, present, state, lanes… ARGV: group, member, lease, at work (1 or 0), temporary (1 or
	// 0), ordered (1 or 0), the lanes that it knows to have, as ",1,5,". One that it got by a beat whose answer was lost is
	// free again. It says that the member is well. A member at work of an ordered group gets its share of the
	// lanes that are free; the shares of all members add up to all lanes. Answers with the group's lease, whether the
	// member is new, its share, its lanes as number and token, and the state of those just taken: number, token, last settled ID, settled beyond, marks.
	beatScript = rueidis.NewLuaScript(luaNow + luaGroup + `local group, me, lease = ARGV[1], ARGV[2], tonumber(ARGV[3])
local all = tonumber(redis.call('HGET', KEYS[1], 'lease:' .. group) or 0)
if all == 0 then return gone end
if ARGV[5] == '1' then redis.call('ZADD', KEYS[3], now + math.max(2 * lease, 30000), me) end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
local new = 0
if ARGV[4] == '1' then new = redis.call('ZADD', KEYS[2], now + lease, me) end
local members, rank = redis.call('ZRANGE', KEYS[2], 0, -1), 0
table.sort(members)
for i, m in ipairs(members) do
  if m == me then rank = i end
end
local lanes = #KEYS - 4
if ARGV[6] == '0' then
  if not find(KEYS[5], group) then return gone end
  return {all, new, 0, {}, {}}
end
local share = 0
if rank > 0 then
  share = math.floor(lanes / #members)
  if rank <= lanes % #members then share = share + 1 end
end
local ask = {}
for i = 0, lanes - 1 do
  ask[#ask + 1] = 'o' .. i
  ask[#ask + 1] = 'x' .. i
end
local v = redis.call('HMGET', KEYS[4], unpack(ask))
local mine, taken, set, free = {}, {}, {}, {}
for i = 0, lanes - 1 do
  local owner, ends = v[2 * i + 1], tonumber(v[2 * i + 2] or 0)
  if owner == me and not string.find(ARGV[7], ',' .. i .. ',', 1, true) then
    redis.call('HDEL', KEYS[4], 'o' .. i, 'x' .. i)
    free[#free + 1] = i
  elseif owner == me then
    mine[#mine + 1] = i
    mine[#mine + 1] = redis.call('HGET', KEYS[4], 't' .. i)
    redis.call('HSET', KEYS[4], 'x' .. i, now + lease)
  elseif not owner or ends <= now then
    free[#free + 1] = i
  end
end
for _, i in ipairs(free) do
  if #mine / 2 + #taken / 5 >= share then break end
  local g = find(KEYS[5 + i], group)
  if not g then return gone end
  local token = redis.call('HINCRBY', KEYS[4], 't' .. i, 1)
  local s = redis.call('HMGET', KEYS[4], 'h' .. i, 'a' .. i, 'k' .. i)
  local marks = s[3] or ''
  if s[1] and s[1] ~= '' then marks = marks .. ' ' .. s[1] end
  redis.call('HSET', KEYS[4], 'o' .. i, me, 'x' .. i, now + lease, 'h' .. i, '', 'k' .. i, marks)
  for _, x in ipairs({i, tostring(token), g['last-delivered-id'], s[2] or '', marks}) do taken[#taken + 1] = x end
end
return {all, new, share, mine, taken}`)

	// syncScript KEYS: state, lanes… ARGV: group, member, lease, and for each of the lanes its number, the token, what to do
	// (keep, free, or anew: with a new token), last settled ID, settled beyond, highest ID given to a handler, marks. A lane
	// that the member does not have under the token is left alone. Answers with the token of each, 0 for those.
	syncScript = rueidis.NewLuaScript(luaNow + `local out = {}
for n = 2, #KEYS do
  local a = 4 + (n - 2) * 7
  local i, token, what = ARGV[a], ARGV[a + 1], ARGV[a + 2]
  local has = redis.call('HMGET', KEYS[1], 'o' .. i, 't' .. i)
  if has[1] == ARGV[2] and has[2] == token then
    redis.call('XGROUP', 'SETID', KEYS[n], ARGV[1], ARGV[a + 3])
    redis.call('HSET', KEYS[1], 'x' .. i, now + tonumber(ARGV[3]), 'a' .. i, ARGV[a + 4], 'h' .. i, ARGV[a + 5], 'k' .. i, ARGV[a + 6])
    if what == 'free' then redis.call('HDEL', KEYS[1], 'o' .. i, 'x' .. i) end
    if what == 'anew' then token = tostring(redis.call('HINCRBY', KEYS[1], 't' .. i, 1)) end
    out[#out + 1] = token
  else
    out[#out + 1] = '0'
  end
end
return out`)

	// takeScript KEYS: lanes… ARGV: group, member, number, where to begin. It reads at most that many new entries from all
	// lanes together, which XREADGROUP cannot. Answers with lane and entry of each.
	takeScript = rueidis.NewLuaScript(`local out, left = {}, tonumber(ARGV[3])
for n = 0, #KEYS - 1 do
  if left == 0 then break end
  local i = (n + ARGV[4]) % #KEYS
  local got = redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', left, 'STREAMS', KEYS[i + 1], '>')
  if got then
    for _, e in ipairs(got[1][2]) do
      out[#out + 1] = i
      out[#out + 1] = e
      left = left - 1
    end
  end
end
return out`)

	// claimScript KEYS: lanes… ARGV: group, member, idle time, number. It takes over what has been idle for so long.
	// Answers with lane, deliveries and entry of each.
	claimScript = rueidis.NewLuaScript(`local out, left = {}, tonumber(ARGV[4])
for n, key in ipairs(KEYS) do
  local cursor = '0-0'
  for _ = 1, 20 do
    if left == 0 then return out end
    local got = redis.call('XAUTOCLAIM', key, ARGV[1], ARGV[2], ARGV[3], cursor, 'COUNT', left)
    for _, e in ipairs(got[2]) do
      if e then
        local p = redis.call('XPENDING', key, ARGV[1], e[1], e[1], 1)
        out[#out + 1] = n - 1
        out[#out + 1] = p[1] and p[1][4] or 1
        out[#out + 1] = e
        left = left - 1
      end
    end
    cursor = got[1]
    if cursor == '0-0' then break end
  end
end
return out`)

	// holdScript KEYS: lanes… ARGV: group, member, and for each delivery its lane, ID, count and what to do: keep it, with
	// its lease begun anew, or give it back. One that the member does not hold any more, under this count, is left alone.
	// Answers with 1 for those that it did hold, 0 for the others.
	holdScript = rueidis.NewLuaScript(`local out = {}
for a = 3, #ARGV, 4 do
  local key, id = KEYS[ARGV[a] + 1], ARGV[a + 1]
  local p = redis.call('XPENDING', key, ARGV[1], id, id, 1)
  if p[1] and p[1][2] == ARGV[2] and p[1][4] == tonumber(ARGV[a + 2]) then
    if ARGV[a + 3] == 'keep' then
      redis.call('XCLAIM', key, ARGV[1], ARGV[2], 0, id, 'JUSTID')
    else
      redis.call('XCLAIM', key, ARGV[1], '-', 0, id, 'IDLE', 100000000000, 'JUSTID')
    end
    out[#out + 1] = 1
  else
    out[#out + 1] = 0
  end
end
return out`)

	// leaveScript KEYS: members, bell, lanes… ARGV: group, member. It gives back all that the member of an unordered group
	// holds, and only then deletes its consumers, which have nothing pending. Answers with the number given back.
	leaveScript = rueidis.NewLuaScript(`redis.call('ZREM', KEYS[1], ARGV[2])
redis.call('DEL', KEYS[2])
local n = 0
for i = 3, #KEYS do
  while true do
    local p = redis.call('XPENDING', KEYS[i], ARGV[1], '-', '+', 500, ARGV[2])
    if #p == 0 then break end
    local ids = {}
    for _, e in ipairs(p) do ids[#ids + 1] = e[1] end
    n = n + #ids
    local claim = {'XCLAIM', KEYS[i], ARGV[1], '-', 0}
    for _, id in ipairs(ids) do claim[#claim + 1] = id end
    for _, word in ipairs({'IDLE', 100000000000, 'JUSTID'}) do claim[#claim + 1] = word end
    redis.call(unpack(claim))
  end
  redis.call('XGROUP', 'DELCONSUMER', KEYS[i], ARGV[1], ARGV[2])
end
return n`)

	// endScript KEYS: meta, present, members, state, lanes… ARGV: group, member or ''. It ends a temporary group that nobody
	// else holds.
	endScript = rueidis.NewLuaScript(luaNow + `redis.call('ZREM', KEYS[2], ARGV[2])
if redis.call('ZCOUNT', KEYS[2], now, '+inf') > 0 then return 0 end
local mode = redis.call('HGET', KEYS[1], 'group:' .. ARGV[1])
if not mode or string.sub(mode, 1, 4) ~= 'temp' then return 0 end
redis.call('DEL', KEYS[2], KEYS[3], KEYS[4])
redis.call('HDEL', KEYS[1], 'group:' .. ARGV[1], 'lease:' .. ARGV[1])
for i = 5, #KEYS do redis.pcall('XGROUP', 'DESTROY', KEYS[i], ARGV[1]) end
return 1`)

	// lagScript KEYS: lane. ARGV: group. Answers with the number of entries that the group has not read, of which it counts
	// 1000 where the server does not know, and the number of those that are pending.
	lagScript = rueidis.NewLuaScript(luaGroup + `local g = find(KEYS[1], ARGV[1])
if not g then return gone end
local unread = g['lag']
if not unread then
  unread = #redis.call('XRANGE', KEYS[1], '(' .. g['last-delivered-id'], '+', 'COUNT', 1000)
end
return {unread, g['pending']}`)

	// trimScript KEYS: lane. ARGV: age in milliseconds or 0, length or 0, whether unhandled messages may go (1 or 0), and
	// the idle time after which a consumer that has nothing is forgotten. Answers with the number removed.
	trimScript = rueidis.NewLuaScript(luaNow + `local function parse(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return {tonumber(ms), tonumber(seq)}
end
local function less(a, b) return a[1] < b[1] or a[1] == b[1] and a[2] < b[2] end
local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
if groups.err then return 0 end
local needed
for _, g in ipairs(groups) do
  local f = {}
  for i = 1, #g, 2 do f[g[i]] = g[i + 1] end
  local first = parse(f['last-delivered-id'])
  first[2] = first[2] + 1
  if f['pending'] > 0 then first = parse(redis.call('XPENDING', KEYS[1], f['name'])[2]) end
  if not needed or less(first, needed) then needed = first end
  for _, c in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], f['name'])) do
    local w = {}
    for i = 1, #c, 2 do w[c[i]] = c[i + 1] end
    if w['pending'] == 0 and w['idle'] > tonumber(ARGV[4]) then
      redis.call('XGROUP', 'DELCONSUMER', KEYS[1], f['name'], w['name'])
    end
  end
end
if not needed and ARGV[3] == '0' then return 0 end
local target = {0, 0}
if ARGV[1] ~= '0' then target = {now - tonumber(ARGV[1]), 0} end
local excess = redis.call('XLEN', KEYS[1]) - tonumber(ARGV[2])
if ARGV[2] ~= '0' and excess > 0 then
  local old = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', math.min(excess, 1000))
  local last = parse(old[#old][1])
  last[2] = last[2] + 1
  if less(target, last) then target = last end
end
if ARGV[3] == '0' and less(needed, target) then target = needed end
if target[1] <= 0 then return 0 end
return redis.call('XTRIM', KEYS[1], 'MINID', string.format('%.0f-%.0f', target[1], target[2]))`)
)

// run has the server run a script. It returns no later than ctx's end, except while the client connects.
func (d *Driver) run(ctx context.Context, script *rueidis.Lua, keys []string, args ...string) rueidis.RedisResult {
	return script.Exec(undated{ctx}, d.client, keys, args)
}

// attend is run for a caller whose ctx must be obeyed in any case: what hangs is left behind, and ends by the client's
// own timeouts.
func (d *Driver) attend(ctx context.Context, script *rueidis.Lua, keys []string, args ...string) (rueidis.RedisMessage, error) {
	type outcome struct {
		answer rueidis.RedisMessage
		err    error
	}
	ended := make(chan outcome, 1)
	go func() {
		answer, err := d.run(ctx, script, keys, args...).ToMessage()
		ended <- outcome{answer, err}
	}()
	select {
	case o := <-ended:
		return o.answer, o.err
	case <-ctx.Done():
		return rueidis.RedisMessage{}, ctx.Err()
	}
}
