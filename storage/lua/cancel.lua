#!lua flags=allow-oom
-- Final at once: the status, the terminal event (stitched around its number) and the end of the lease.
-- KEYS: record, log, leases, owned, ended, queue, upstream cancels
-- ARGV: id, over channel, revoked channel, index ttl, the two halves of the terminal frame
local keys = {record = KEYS[1], log = KEYS[2], leases = KEYS[3], owned = KEYS[4], ended = KEYS[5]}
local id, over, revoked, index_ttl, head, tail = unpack(ARGV)
local r = redis.call('HMGET', keys.record, 'status', 'epoch', 'last', 'ttl_ms', 'idempotency', 'survivable', 'deployment',
  'provider_id')
if not r[1] then return 'gone' end
if TERMINAL[r[1]] then return r[1] == 'cancelled' and 'cancelled' or 'over' end

local position = r[2] .. '-' .. (r[3] + 1)
redis.call('XADD', keys.log, position, 'f', head .. (r[3] + 1) .. tail)
redis.call('HSET', keys.record, 'status', 'cancelled', 'last', r[3] + 1, 'token', '')
redis.call('HDEL', keys.record, 'verdict', 'started')
redis.call('ZREM', keys.leases, id)
redis.call('ZREM', KEYS[6], id)
keys.idempotency = idempotency_of(r[5], id)
cancel_upstream(KEYS[7], r[6], r[7], r[8])
expire(keys, id, tonumber(r[4]), tonumber(index_ttl))
redis.call('PUBLISH', over, position)
redis.call('PUBLISH', revoked, id)
return 'cancelled'
