#!lua flags=allow-oom
-- The last batch with its terminal frame, the status and the final object. The first terminal status wins.
-- KEYS: record, log, leases, owned, ended, upstream cancels
-- ARGV: id, token, epoch, first, last, over channel, index ttl, frames, status, snapshot, abandon (0 or 1), then field, value …
local keys = {record = KEYS[1], log = KEYS[2], leases = KEYS[3], owned = KEYS[4], ended = KEYS[5]}
local id, token, epoch, first, last, over, index_ttl, frames, status, snapshot, abandon = unpack(ARGV, 1, 11)
local r = redis.call('HMGET', keys.record, 'status', 'token', 'epoch', 'last', 'ttl_ms', 'idempotency', 'survivable',
  'deployment', 'provider_id')
if not r[1] then return {'gone', -1} end
local current = tonumber(r[4])
if TERMINAL[r[1]] then
  return {r[2] == token and r[1] == status and 'ok' or 'over', current} -- ok: this call ran before
end
if r[2] ~= token or r[3] ~= epoch then return {'stale', current} end
if tonumber(first) ~= current + 1 then return {'gap', current} end

local added = redis.pcall('XADD', keys.log, epoch .. '-' .. last, 'f', frames)
if type(added) == 'table' and added.err then
  -- A log that was broken by hand must not keep its response from ending.
  redis.call('DEL', keys.log)
  redis.call('XADD', keys.log, epoch .. '-' .. last, 'f', frames)
end
redis.call('HSET', keys.record, 'status', status, 'last', last, 'snapshot', snapshot, unpack(ARGV, 12))
redis.call('HDEL', keys.record, 'base', 'verdict')
redis.call('ZREM', keys.leases, id)
if abandon == '1' then cancel_upstream(KEYS[6], r[7], r[8], r[9]) end
keys.idempotency = idempotency_of(r[6], id)
expire(keys, id, tonumber(r[5]), tonumber(index_ttl))
redis.call('PUBLISH', over, epoch .. '-' .. last)
return {'ok', tonumber(last)}
