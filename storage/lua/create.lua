#!lua
-- Write the record, events 0 and 1, and the job in one step. Without allow-oom, because a full server must take no new
-- work.
-- KEYS
--   whole                          see `keys.py`
--   record, log, queue, rotation, owned, ended, owners, tombstone, feed, tally
--   idempotency?
-- ARGV
--   id, owner
--   digest                         of the body
--   opening                        frames
--   idempotency_ttl_ms, index_ttl_ms:number
--   wake                           channel
--   record_prefix, queue_prefix, ended_prefix
--   most_queued:number, most_in_flight:number    of all, of this owner; 0: no limit
--   ttl_ms:number                  of the record, from its end on
--   begin_within_ms:number         the job's place in the queue is the time by which it ought to begin
--   model, metadata                of the record
--   feed_most:number, feed_ms:number    entries that the feed keeps, and for how long
--   tally_ms                       for how long a tally is kept
--   fields...                      field, value … of the record
local now = now_ms()

if redis.call('EXISTS', record, tombstone) > 0 then
  return {'created', id} -- this call ran before; if the response has been deleted since, it stays deleted
end
if idempotency then
  local seen = redis.call('HMGET', idempotency, 'id', 'body')
  if seen[1] and redis.call('EXISTS', record_prefix .. seen[1]) == 1 then
    return {seen[2] == digest and 'replayed' or 'reused', seen[1]}
  end
end

prune(owned, ended, now)

-- After how many seconds a place is likely to be free: the average time between two ends in the last minute. When a
-- response ended follows from when it expires.
local function retry_after_s(names)
  local ended_lately = 0
  for _, one in ipairs(names) do
    ended_lately = ended_lately + redis.call('ZCOUNT', ended_prefix .. one, now + ttl_ms - 60000, '+inf')
  end
  return ended_lately > 0 and math.ceil(60 / ended_lately) or 60
end

local function in_flight()
  return redis.call('ZCARD', owned) - redis.call('ZCARD', ended)
end

-- Records that were removed by hand never end, and would count for ever. So when the limit is reached, and only then,
-- the oldest ids are checked and dropped if their records are gone.
local function forget_the_lost()
  for _, one in ipairs(redis.call('ZRANGE', owned, 0, 255)) do
    if redis.call('EXISTS', record_prefix .. one) == 0 then
      redis.call('ZREM', owned, one)
      redis.call('ZREM', ended, one)
    end
  end
end

if most_in_flight > 0 and in_flight() >= most_in_flight then
  forget_the_lost()
  if in_flight() >= most_in_flight then
    return {'busy', retry_after_s({owner})}
  end
end
if most_queued > 0 then
  local waiting, queued = redis.call('ZRANGE', rotation, 0, -1), 0
  for _, one in ipairs(waiting) do
    queued = queued + redis.call('ZCARD', queue_prefix .. one)
  end
  if queued >= most_queued then
    return {'full', retry_after_s(waiting)}
  end
end

redis.call('XADD', log, '1-1', 'f', opening)
local begin_by = now + begin_within_ms
enqueue(queue, rotation, owner, id, begin_by)
redis.call('ZADD', owned, now, id)
redis.call('PEXPIRE', owned, index_ttl_ms)
redis.call('PEXPIRE', ended, index_ttl_ms)
keep_only('zset', owners)
redis.call('ZADD', owners, now, owner)
local gone = redis.call('ZRANGEBYSCORE', owners, '-inf', now - index_ttl_ms, 'LIMIT', 0, 32)
if #gone > 0 then redis.call('ZREM', owners, unpack(gone)) end
redis.call('PEXPIRE', owners, index_ttl_ms)
if idempotency then
  redis.call('DEL', idempotency)
  redis.call('HSET', idempotency, 'id', id, 'body', digest)
  redis.call('PEXPIRE', idempotency, idempotency_ttl_ms)
  redis.call('HSET', record, 'idempotency', idempotency)
end
if begin_within_ms > 0 then
  redis.call('HSET', record, 'begin_by_ms', begin_by) -- for `release`; where it is absent, `queued_ms` is the same
end
local of = {id = id, record = record, owner = owner, model = model, metadata = metadata, feed = feed,
  feed_most = feed_most, feed_ms = feed_ms, tally = tally, tally_ms = tally_ms}
transition(of, 'queued', 'owner', owner, 'model', model, 'metadata', metadata, 'queued_ms', now, 'epoch', 1,
  'attempt', 0, 'last', 1, 'ttl_ms', ttl_ms, unpack(fields))
redis.call('PUBLISH', wake, id)
return {'created', id}
