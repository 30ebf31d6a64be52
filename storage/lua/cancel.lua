#!lua flags=allow-oom
-- Cancel a response in one step: set the status, append the terminal event and end the lease. The caller does not know
-- the event's sequence number, so the script puts it between two halves of the frame.
-- KEYS
--   whole                          see `keys.py`
--   record, log, leases, owned, ended, queue, upstream_cancels, feed, tally, endpoints, endpoints_due, usage, usage_owners
-- ARGV
--   id
--   over, revoked                  channels
--   index_ttl_ms:number
--   feed_most:number, feed_ms:number    entries that the feed keeps, and for how long
--   tally_ms                       for how long a tally is kept
--   hooks                          endpoints that are to be told, whatever is stored; with spaces in between
--   due_prefix, delivery_prefix, paused_prefix
--   delivery_ms                    how long a delivery is kept
--   usage_ms                       how long usage is kept
--   untold                         what is counted as its usage if the provider has told nothing so far
--   head, tail                     of the terminal frame, around its number
local r = redis.call('HMGET', record, 'status', 'epoch', 'last', 'ttl_ms', 'idempotency', 'survivable', 'deployment',
  'provider_id', 'owner', 'model', 'metadata', 'webhook',
  'spent', 'headers')
if not r[1] then return 'gone' end
if TERMINAL[r[1]] then return r[1] == 'cancelled' and 'cancelled' or 'over' end

local last = r[3] + 1
local position = r[2] .. '-' .. last
redis.call('XADD', log, position, 'f', head .. last .. tail)
redis.call('HDEL', record, 'verdict', 'started', 'client_key')
redis.call('ZREM', leases, id)
redis.call('ZREM', queue, id)
cancel_upstream(upstream_cancels, r[6], r[7], r[8])
local of = {id = id, record = record, status = r[1], owner = r[9], model = r[10], metadata = r[11], feed = feed,
  feed_most = feed_most, feed_ms = feed_ms, tally = tally, tally_ms = tally_ms,
  log = log, owned = owned, ended = ended, ttl_ms = r[4],
  index_ttl_ms = index_ttl_ms, idempotency = idempotency_of(r[5], id),
  hooks = hooks, webhook = r[12], headers = r[14], endpoints = endpoints, endpoints_due = endpoints_due,
  due_prefix = due_prefix,
  delivery_prefix = delivery_prefix, paused_prefix = paused_prefix, delivery_ms = delivery_ms,
  spent = told(r[13], untold), usage = usage, usage_owners = usage_owners, usage_ms = usage_ms}
transition(of, 'cancelled', 'last', last, 'token', '')
redis.call('PUBLISH', over, position)
redis.call('PUBLISH', revoked, id)
return 'cancelled'
