#!lua flags=allow-oom
-- Note what became of a try: told, to be tried again, or given up. Pause an endpoint that fails again and again.
-- KEYS
--   whole                          see `keys.py`
--   endpoints_due, due, delivery, paused, health, delivered
-- ARGV
--   delivery_prefix
--   name, endpoint, token
--   outcome                        told, again, failed, or later (it was not tried)
--   again_ms:number                after how long it is tried again
--   code, latency_ms, reason       of this try
--   most_failures:number           in a row, after which the endpoint is paused
--   pause_ms:number                between two probes
--   kept:number                    ended deliveries that are listed. One that was told is forgotten when it leaves the list
--   kept_ms                        for how long
-- Returns 'stale' if somebody else has it by now, 'paused' if the endpoint is paused by this, else 'ok'.
if redis.call('HGET', delivery, 'token') ~= token then return 'stale' end
keep_only('hash', health)
keep_only('list', delivered)
local now, word = now_ms(), 'ok'
redis.call('HSET', delivery, 'token', '', 'code', code, 'latency_ms', latency_ms, 'reason', reason, 'tried', now)

if outcome == 'told' then
  redis.call('DEL', health, paused)
elseif outcome ~= 'later' then
  local failures = redis.call('HINCRBY', health, 'failures', 1)
  redis.call('HSET', health, 'code', code, 'reason', reason)
  redis.call('PEXPIRE', health, kept_ms)
  if failures >= most_failures then
    word = failures == most_failures and 'paused' or 'ok'
    redis.call('SET', paused, failures, 'PX', kept_ms) -- until it takes one
  end
end

if outcome == 'told' or outcome == 'failed' then
  redis.call('ZREM', due, name)
  redis.call('HSET', delivery, 'outcome', outcome)
  redis.call('LREM', delivered, 0, name)
  redis.call('LPUSH', delivered, name)
  for _, old in ipairs(redis.call('LRANGE', delivered, kept, -1)) do
    if redis.pcall('HGET', delivery_prefix .. old, 'outcome') == 'told' then redis.call('DEL', delivery_prefix .. old) end
  end
  redis.call('LTRIM', delivered, 0, kept - 1)
  redis.call('PEXPIRE', delivered, kept_ms)
  redis.call('PEXPIRE', delivery, kept_ms)
else
  if outcome == 'later' then redis.call('HINCRBY', delivery, 'attempts', -1) end
  redis.call('ZADD', due, 'XX', now + again_ms, name) -- not if its endpoint was removed meanwhile
end

local nearest = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')
if not nearest[2] then
  redis.call('ZREM', endpoints_due, endpoint)
elseif redis.call('EXISTS', paused) == 1 then
  redis.call('ZADD', endpoints_due, math.max(nearest[2], now + pause_ms), endpoint)
else
  redis.call('ZADD', endpoints_due, nearest[2], endpoint)
end
return word
