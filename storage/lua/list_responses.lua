#!lua flags=allow-oom
-- List the responses of one owner, or of all owners of a shard, newest first. Only a primary may answer, see `read.lua`.
-- KEYS
--   whole                          see `keys.py`
--   owners
-- ARGV
--   owner                          or empty: all
--   owned_prefix
--   before                         the time (ms) of creation from which on they are left out; or +inf
--   most:number
-- Returns ids and times of creation (ms). There are more than `most` if that many share the time of the last one.
local MOST_OWNERS = 1024 -- are looked at; those who created something last come first
local found = {}

local function take(name)
  local index = owned_prefix .. name
  local part = redis.pcall('ZRANGE', index, before, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, most, 'WITHSCORES')
  if part.err or #part == 0 then return end
  local last = part[#part]
  if #part == 2 * most then -- whoever goes on behind this page goes on behind its last time
    part = redis.call('ZRANGE', index, before, last, 'BYSCORE', 'REV', 'WITHSCORES')
  end
  for i = 1, #part, 2 do found[#found + 1] = {part[i], tonumber(part[i + 1])} end
end

local function newer(one, other)
  if one[2] ~= other[2] then return one[2] > other[2] end
  return one[1] > other[1]
end

-- Leave out what lies behind the time of the last one that fits. Returns that time, if there are so many.
local function cut()
  table.sort(found, newer)
  if #found < most then return nil end
  local last = found[most][2]
  while found[#found][2] < last do found[#found] = nil end
  return last
end

if owner ~= '' then
  take(owner)
  cut()
else
  local names = redis.pcall('ZRANGE', owners, 0, MOST_OWNERS - 1, 'REV', 'WITHSCORES')
  for i = 1, names.err and 0 or #names, 2 do
    local last = cut()
    -- Of this owner, and of those behind it, everything is older.
    if last and tonumber(names[i + 1]) < last then break end
    take(names[i])
  end
  cut()
end

local answer = {}
for _, one in ipairs(found) do
  answer[#answer + 1] = one[1]
  answer[#answer + 1] = one[2]
end
return answer
