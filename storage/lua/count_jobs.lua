#!lua flags=allow-oom
-- Count the jobs of a shard. Only a primary may answer, see `read.lua`.
-- KEYS
--   rotation, leases
-- ARGV
--   queue_prefix
-- Returns how many are queued, and how many are leased.
local queued = 0
for _, owner in ipairs(redis.call('ZRANGE', rotation, 0, -1)) do
  queued = queued + redis.call('ZCARD', queue_prefix .. owner)
end
return {queued, redis.call('ZCARD', leases)}
