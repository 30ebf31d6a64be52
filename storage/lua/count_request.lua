#!lua flags=allow-oom
-- Count a request of an owner, unless as many as allowed came within the last minute. Requests that are refused do not
-- count. What is kept is bounded by that number, 75 bytes for each, and a full server has to limit requests too.
-- KEYS
--   requests
-- ARGV
--   token                          of this request
--   most:number                    a minute
-- Returns how long (ms) to wait until there is room for one; 0: it was counted.
local MINUTE_MS = 60000
local now = now_ms()
if redis.call('ZREVRANK', requests, token) then return 0 end -- this call ran before

-- If the request that came `most` places before this one is still within the minute, there is room when it leaves it.
local before = redis.call('ZRANGE', requests, -most, -most, 'WITHSCORES')[2]
if before and tonumber(before) + MINUTE_MS > now then return tonumber(before) + MINUTE_MS - now end

local left = redis.call('ZRANGEBYSCORE', requests, '-inf', now - MINUTE_MS, 'LIMIT', 0, 32)
if #left > 0 then redis.call('ZREM', requests, unpack(left)) end
redis.call('ZADD', requests, now, token)
redis.call('PEXPIRE', requests, MINUTE_MS)
return 0
