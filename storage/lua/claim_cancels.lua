#!lua flags=allow-oom
-- Take some of the due upstream cancels, for a while: whoever dies with them leaves them to the next.
-- KEYS: upstream cancels
-- ARGV: how many, for how long (ms)
local now = now_ms()
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[1])
for _, member in ipairs(due) do
  redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), member)
end
return due
