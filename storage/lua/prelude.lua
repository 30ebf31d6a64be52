-- Put behind the first line of every script.
local TERMINAL = {completed = true, failed = true, incomplete = true, cancelled = true}

-- Whether a field holds a whole number, as we write them. Records are broken by hand now and then.
local function is_count(text)
  return text and string.match(text, '^%d+$') ~= nil
end

local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- The turn behind all who wait already.
local function last_turn(rotation)
  local newest = redis.call('ZRANGE', rotation, -1, -1, 'WITHSCORES')
  return newest[2] and newest[2] + 1 or 0
end

-- Queue a job, and give its owner a turn behind all who wait already.
local function enqueue(queue, rotation, owner, id, score)
  redis.call('ZADD', queue, score, id)
  redis.call('ZADD', rotation, 'NX', last_turn(rotation), owner)
end

-- Drop from an owner's index what has expired; a few each time, so that it never costs a pause.
local function prune(owned, ended, now)
  local expired = redis.call('ZRANGEBYSCORE', ended, '-inf', now, 'LIMIT', 0, 32)
  if #expired > 0 then
    redis.call('ZREM', owned, unpack(expired))
    redis.call('ZREM', ended, unpack(expired))
  end
end

-- A provider's own background run goes on unless it is told.
local function cancel_upstream(cancels, survivable, deployment, provider_id)
  if survivable == '1' and provider_id and provider_id ~= '' then
    local now = now_ms()
    redis.call('ZADD', cancels, now, now .. ' ' .. deployment .. ' ' .. provider_id)
  end
end

-- The idempotency key of a response, unless it has come to name another one since.
local function idempotency_of(key, id)
  return key and redis.call('HGET', key, 'id') == id and key or nil
end

-- Only what has ended has a time to live, the same on all its keys.
-- keys: record, log, owned, ended, and idempotency where there is one.
local function expire(keys, id, ttl_ms, index_ttl_ms)
  local now = now_ms()
  redis.call('PEXPIRE', keys.record, ttl_ms)
  redis.call('PEXPIRE', keys.log, ttl_ms)
  if keys.idempotency then
    redis.call('PEXPIRE', keys.idempotency, ttl_ms, 'LT')
  end
  redis.call('ZADD', keys.ended, now + ttl_ms, id)
  prune(keys.owned, keys.ended, now)
  redis.call('PEXPIRE', keys.owned, math.max(index_ttl_ms, ttl_ms))
  redis.call('PEXPIRE', keys.ended, math.max(index_ttl_ms, ttl_ms))
end
