#!lua flags=allow-oom
-- Cancel what runs and remove everything, in one step.
-- KEYS: record, log, leases, owned, ended, queue, tombstone, upstream cancels
-- ARGV: id, token, over channel, revoked channel, tombstone ttl
local record, log, leases, owned, ended, queue, tombstone, upstream_cancels = unpack(KEYS)
local id, token, over, revoked, ttl = unpack(ARGV)
local r = redis.call('HMGET', record, 'status', 'idempotency', 'survivable', 'deployment', 'provider_id')
if not r[1] then
  -- ok: this call ran before. Else a late `create` of this id must come to nothing.
  redis.call('SET', tombstone, 'gone', 'PX', ttl, 'NX')
  return redis.call('GET', tombstone) == token and 'ok' or 'gone'
end
local idempotency = idempotency_of(r[2], id)
if idempotency then redis.call('DEL', idempotency) end
if not TERMINAL[r[1]] then cancel_upstream(upstream_cancels, r[3], r[4], r[5]) end
redis.call('DEL', record, log)
redis.call('ZREM', leases, id)
redis.call('ZREM', queue, id)
redis.call('ZREM', owned, id)
redis.call('ZREM', ended, id)
redis.call('SET', tombstone, token, 'PX', ttl)
redis.call('PUBLISH', over, 'gone')
redis.call('PUBLISH', revoked, id)
return 'ok'
