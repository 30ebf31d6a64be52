#!lua
-- Record, events 0 and 1, and the job, in one step. No allow-oom: a full server takes no new work.
-- KEYS: record, log, queue, rotation, owned, ended, tombstone [, idempotency]
-- ARGV: id, owner, body digest, opening frames, idempotency ttl, index ttl, wake channel, record prefix,
--       then field, value … of the record
local record, log, queue, rotation, owned, ended, tombstone, idempotency = unpack(KEYS)
local id, owner, digest, opening, idempotency_ttl, index_ttl, wake, record_prefix = unpack(ARGV, 1, 8)

if redis.call('EXISTS', record, tombstone) > 0 then
  return {'created', id} -- this call ran before; and what was deleted since stays so
end
if idempotency then
  local seen = redis.call('HMGET', idempotency, 'id', 'body')
  if seen[1] and redis.call('EXISTS', record_prefix .. seen[1]) == 1 then
    return {seen[2] == digest and 'replayed' or 'reused', seen[1]}
  end
end

local now = now_ms()
redis.call('HSET', record, 'owner', owner, 'status', 'queued', 'queued_ms', now,
  'epoch', 1, 'attempt', 0, 'last', 1, unpack(ARGV, 9))
redis.call('XADD', log, '1-1', 'f', opening)
enqueue(queue, rotation, owner, id, now)
redis.call('ZADD', owned, now, id)
prune(owned, ended, now)
redis.call('PEXPIRE', owned, index_ttl)
if idempotency then
  redis.call('DEL', idempotency)
  redis.call('HSET', idempotency, 'id', id, 'body', digest)
  redis.call('PEXPIRE', idempotency, idempotency_ttl)
  redis.call('HSET', record, 'idempotency', idempotency)
end
redis.call('PUBLISH', wake, id)
return {'created', id}
