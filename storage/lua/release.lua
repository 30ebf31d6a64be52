#!lua flags=allow-oom
-- Hand a job back. In its owner's queue it gets the place that it had before it was leased.
-- KEYS
--   record, leases, queue, rotation
-- ARGV
--   id, token
--   wake                           channel
--   taken_back                     how many attempts are not to count
local r = redis.call('HMGET', record, 'status', 'token', 'owner', 'queued_ms', 'attempt', 'released',
  'begin_by_ms', 'life')
if not r[1] then return 'gone' end
if TERMINAL[r[1]] then return 'over' end
if r[6] == token then return 'ok' end -- this call ran before
if r[2] ~= token then return 'stale' end
redis.call('HSET', record, 'token', '', 'released', token, 'attempt', r[5] - taken_back,
  'life', lived(r[8], 'released ' .. r[5]))
redis.call('ZREM', leases, id)
enqueue(queue, rotation, r[3], id, is_count(r[7]) and r[7] or r[4])
redis.call('PUBLISH', wake, id)
return 'ok'
