#!lua flags=allow-oom
-- Count what waits in a shard, and tell for how long. Only a primary may answer, see `read.lua`.
-- KEYS
--   whole                          see `keys.py`
--   rotation, leases, endpoints_due
-- ARGV
--   queue_prefix
-- Returns how many jobs are queued, how many are leased, and how many endpoints are owed something; then how much time
-- (ms) has passed since the first of the queued jobs ought to have begun, and since the first delivery was due.
local now = now_ms()

-- The time since the first of these scores, if that has come.
local function overdue(key)
  local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
  return first and math.max(0, now - tonumber(first)) or 0
end

local queued, late = 0, 0
for _, owner in ipairs(redis.call('ZRANGE', rotation, 0, -1)) do
  local queue = queue_prefix .. owner
  queued, late = queued + redis.call('ZCARD', queue), math.max(late, overdue(queue))
end
-- Of another type it was made by hand. The next delivery replaces it.
if redis.call('TYPE', endpoints_due).ok ~= 'zset' then return {queued, redis.call('ZCARD', leases), 0, late, 0} end
return {queued, redis.call('ZCARD', leases), redis.call('ZCARD', endpoints_due), late, overdue(endpoints_due)}
