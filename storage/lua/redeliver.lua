#!lua flags=allow-oom
-- Make a delivery due once more, whatever became of it.
-- KEYS
--   endpoints_due, due, delivery, paused
-- ARGV
--   name, endpoint
--   delivery_ms                    how long it is kept
local now = now_ms()
if redis.call('EXISTS', delivery) == 0 then return 'gone' end
redis.call('HSET', delivery, 'attempts', 0, 'since', now, 'token', '', 'outcome', '')
redis.call('PEXPIRE', delivery, delivery_ms)
redis.call('ZADD', due, now, name)
redis.call('PEXPIRE', due, delivery_ms)
due_at(endpoints_due, paused, endpoint, now)
redis.call('PEXPIRE', endpoints_due, delivery_ms)
redis.call('PUBLISH', endpoints_due, endpoint)
return 'ok'
