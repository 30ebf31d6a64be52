#!lua flags=allow-oom
-- End a response: write the last batch with the terminal frame, the status and the final object. If the response
-- already has a terminal status, that one stays.
-- KEYS
--   whole                          see `keys.py`
--   record, log, leases, owned, ended, upstream_cancels, feed, tally, endpoints, endpoints_due, usage, usage_owners
-- ARGV
--   id, token, epoch
--   first, last                    numbers in the batch
--   over                           channel
--   index_ttl_ms:number
--   feed_most:number, feed_ms:number    entries that the feed keeps, and for how long
--   tally_ms                       for how long a tally is kept
--   hooks                          endpoints that are to be told, whatever is stored; with spaces in between
--   due_prefix, delivery_prefix, paused_prefix
--   delivery_ms                    how long a delivery is kept
--   usage_ms                       how long usage is kept
--   spent                          what it has used, as far as this is known now; or empty
--   untold                         what is counted if nobody has told
--   frames, status
--   snapshot                       the final object
--   abandon                        1: the provider's own run is to be cancelled, if there is one
--   fields...                      field, value … of the record
local r = redis.call('HMGET', record, 'status', 'token', 'epoch', 'last', 'ttl_ms', 'idempotency', 'survivable',
  'deployment', 'provider_id', 'owner', 'model', 'metadata',
  'webhook', 'spent', 'headers')
if not r[1] then return {'gone', -1} end
local current = tonumber(r[4])
if TERMINAL[r[1]] then
  return {r[2] == token and r[1] == status and 'ok' or 'over', current} -- 'ok' if this call ran before
end
if r[2] ~= token or r[3] ~= epoch then return {'stale', current} end
if tonumber(first) ~= current + 1 then return {'gap', current} end

local position = epoch .. '-' .. last
local added = redis.pcall('XADD', log, position, 'f', frames)
if type(added) == 'table' and added.err then
  -- A log that was damaged by hand must not keep its response from ending.
  redis.call('DEL', log)
  redis.call('XADD', log, position, 'f', frames)
end
redis.call('HDEL', record, 'base', 'verdict', 'client_key')
redis.call('ZREM', leases, id)
if abandon == '1' then cancel_upstream(upstream_cancels, r[7], r[8], r[9]) end
local of = {id = id, record = record, status = r[1], owner = r[10], model = r[11], metadata = r[12], feed = feed,
  feed_most = feed_most, feed_ms = feed_ms, tally = tally, tally_ms = tally_ms,
  log = log, owned = owned, ended = ended, ttl_ms = r[5],
  index_ttl_ms = index_ttl_ms, idempotency = idempotency_of(r[6], id),
  hooks = hooks, webhook = r[13], headers = r[15], endpoints = endpoints, endpoints_due = endpoints_due,
  due_prefix = due_prefix,
  delivery_prefix = delivery_prefix, paused_prefix = paused_prefix, delivery_ms = delivery_ms,
  spent = told(spent, r[14], untold), usage = usage, usage_owners = usage_owners, usage_ms = usage_ms}
transition(of, status, 'last', last, 'snapshot', snapshot, unpack(fields))
redis.call('PUBLISH', over, position)
return {'ok', tonumber(last)}
