#!lua
-- Append a batch to the log, set fields, renew the lease. No allow-oom: `finish` has it, so that a run can end.
-- KEYS: record, log, leases
-- ARGV: id, token, epoch, first, last, lease ms, moved channel, frames, then field, value …
local record, log, leases = unpack(KEYS)
local id, token, epoch, first, last, lease_ms, moved, frames = unpack(ARGV, 1, 8)
local r = redis.call('HMGET', record, 'status', 'token', 'epoch', 'last')
if not r[1] then return {'gone', -1} end
local current = tonumber(r[4])
if TERMINAL[r[1]] then return {'over', current} end
if r[2] ~= token or r[3] ~= epoch then return {'stale', current} end

local fresh = frames ~= '' and tonumber(last) > current -- else this call ran before, or only sets fields
if fresh and tonumber(first) ~= current + 1 then return {'gap', current} end
if fresh then
  redis.call('XADD', log, epoch .. '-' .. last, 'f', frames)
  redis.call('HSET', record, 'last', last)
end
if #ARGV > 8 then redis.call('HSET', record, unpack(ARGV, 9)) end
redis.call('ZADD', leases, now_ms() + tonumber(lease_ms), id)
if fresh then redis.call('PUBLISH', moved, epoch .. '-' .. last) end
return {'ok', math.max(current, tonumber(last))}
