#!lua flags=allow-oom
-- Remove a response and all that belongs to it in one step; if it runs, that also cancels it.
-- KEYS
--   whole                          see `keys.py`
--   record, log, leases, owned, ended, queue, tombstone, upstream_cancels, feed, tally, usage, usage_owners
-- ARGV
--   id, token
--   over, revoked                  channels
--   tombstone_ttl_ms
--   feed_most:number, feed_ms:number    entries that the feed keeps, and for how long
--   tally_ms                       for how long a tally is kept
--   usage_ms                       how long usage is kept
--   untold                         what is counted as its usage if it has not ended, and the provider has told nothing
local r = redis.call('HMGET', record, 'status', 'idempotency', 'survivable', 'deployment', 'provider_id', 'owner',
  'model', 'metadata', 'spent')
if not r[1] then
  -- 'ok' if this call ran before. Otherwise the tombstone keeps a `create` of this id that comes late from succeeding.
  redis.call('SET', tombstone, 'gone', 'PX', tombstone_ttl_ms, 'NX')
  return redis.call('GET', tombstone) == token and 'ok' or 'gone'
end
if not TERMINAL[r[1]] then cancel_upstream(upstream_cancels, r[3], r[4], r[5]) end
redis.call('ZREM', leases, id)
redis.call('ZREM', queue, id)
redis.call('SET', tombstone, token, 'PX', tombstone_ttl_ms)
local of = {id = id, record = record, status = r[1], owner = r[6], model = r[7], metadata = r[8], feed = feed,
  feed_most = feed_most, feed_ms = feed_ms, tally = tally, tally_ms = tally_ms, log = log, owned = owned, ended = ended,
  idempotency = idempotency_of(r[2], id),
  spent = not TERMINAL[r[1]] and told(r[9], untold), usage = usage, usage_owners = usage_owners, usage_ms = usage_ms}
transition(of, 'deleted')
redis.call('PUBLISH', over, 'gone')
redis.call('PUBLISH', revoked, id)
return 'ok'
