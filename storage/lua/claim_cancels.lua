#!lua flags=allow-oom
-- Take some of the due upstream cancels and put them off by `for_ms`: if the process that took them dies, they become
-- due again.
-- KEYS
--   upstream_cancels
-- ARGV
--   most, for_ms:number
local now = now_ms()
keep_only('zset', upstream_cancels)
local due = redis.call('ZRANGEBYSCORE', upstream_cancels, '-inf', now, 'LIMIT', 0, most)
for _, member in ipairs(due) do
  redis.call('ZADD', upstream_cancels, now + for_ms, member)
end
return due
