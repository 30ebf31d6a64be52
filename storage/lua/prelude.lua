-- The loader inserts this text behind the first line of every script.
local TERMINAL = {completed = true, failed = true, incomplete = true, cancelled = true}

-- The part of a list that begins at a place.
local function from(list, place)
  local rest = {}
  for i = place, #list do rest[#rest + 1] = list[i] end
  return rest
end

-- Whether a field holds a whole number in the form that we write. A record may have been damaged by hand.
local function is_count(text)
  return text and #text <= 15 and string.match(text, '^%d+$') ~= nil
end

-- Drop a key that has become one of another type by hand: nothing could be written to it any more.
local function keep_only(kind, key)
  local found = redis.call('TYPE', key).ok
  if found ~= kind and found ~= 'none' then redis.call('DEL', key) end
end

local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- The turn after those of all owners that wait already.
local function last_turn(rotation)
  local newest = redis.call('ZRANGE', rotation, -1, -1, 'WITHSCORES')
  return newest[2] and newest[2] + 1 or 0
end

-- Queue a job. If its owner has no turn yet, it gets one after all owners that wait already.
local function enqueue(queue, rotation, owner, id, score)
  redis.call('ZADD', queue, score, id)
  redis.call('ZADD', rotation, 'NX', last_turn(rotation), owner)
end

-- What a job has lived through, with one more line for what happens to it now. A job that is taken and handed back for
-- ever keeps its first lines.
local function lived(life, what)
  life = type(life) == 'string' and life or ''
  return #life < 4096 and life .. now_ms() .. ' ' .. what .. '\n' or life
end

-- Drop expired responses from an owner's index, only a few each time, so that no call takes long.
local function prune(owned, ended, now)
  local expired = redis.call('ZRANGEBYSCORE', ended, '-inf', now, 'LIMIT', 0, 32)
  if #expired > 0 then
    redis.call('ZREM', owned, unpack(expired))
    redis.call('ZREM', ended, unpack(expired))
  end
end

-- Queue the cancel of a provider's own background run: it would go on until the provider is told.
local function cancel_upstream(cancels, survivable, deployment, provider_id)
  if survivable == '1' and deployment and provider_id and provider_id ~= '' then
    local now = now_ms()
    keep_only('zset', cancels)
    redis.call('ZADD', cancels, now, now .. ' ' .. deployment .. ' ' .. provider_id)
  end
end

-- The idempotency key of a response; nil if the key names another response by now.
local function idempotency_of(key, id)
  return key and redis.call('HGET', key, 'id') == id and key or nil
end

-- Give a response that has ended its time to live, the same on all its keys. Others never expire.
-- of: as for `transition`
local function expire(of)
  local now, ttl_ms = now_ms(), tonumber(of.ttl_ms)
  redis.call('PEXPIRE', of.record, ttl_ms)
  redis.call('PEXPIRE', of.log, ttl_ms)
  if of.idempotency then
    redis.call('PEXPIRE', of.idempotency, ttl_ms, 'LT')
  end
  redis.call('ZADD', of.ended, now + ttl_ms, of.id)
  prune(of.owned, of.ended, now)
  redis.call('PEXPIRE', of.owned, math.max(of.index_ttl_ms, ttl_ms))
  redis.call('PEXPIRE', of.ended, math.max(of.index_ttl_ms, ttl_ms))
end

-- Remove all keys of a response, and its place in the index of its owner.
local function remove(of)
  redis.call('DEL', of.record, of.log)
  if of.idempotency then redis.call('DEL', of.idempotency) end
  redis.call('ZREM', of.owned, of.id)
  redis.call('ZREM', of.ended, of.id)
end

-- Tell all who follow the feed that a response took a status. Returns the place of that in the feed.
local function tell(of, status)
  local words = {'t', status, 'r', of.id, 'o', of.owner, 'm', of.model or '', 'd', of.metadata or ''}
  local told = redis.pcall('XADD', of.feed, 'MAXLEN', '~', of.feed_most, '*', unpack(words))
  if type(told) == 'table' and told.err then
    -- A feed that was broken by hand must not keep a response from moving on.
    redis.call('DEL', of.feed)
    told = redis.call('XADD', of.feed, '*', unpack(words))
  end
  redis.call('XTRIM', of.feed, 'MINID', '~', now_ms() - of.feed_ms)
  redis.call('PEXPIRE', of.feed, of.feed_ms)
  redis.call('PUBLISH', of.feed, status)
  -- Nor must a tally that was broken by hand.
  redis.pcall('HINCRBY', of.tally, status .. ' ' .. of.owner, 1)
  redis.pcall('PEXPIRE', of.tally, of.tally_ms)
  return told
end

-- The endpoints that want to be told of a status: those that the caller names, the owner's, and the response's own.
-- Returns by endpoint what else is needed to reach it, which nobody but us can read.
local function wanted_by(of, status)
  local wanted = {}
  for endpoint in string.gmatch(of.hooks, '%S+') do wanted[endpoint] = '' end
  local stored = redis.pcall('HGETALL', of.endpoints)
  for i = 1, stored.err and 0 or #stored, 2 do
    local read, about = pcall(cjson.decode, stored[i + 1])
    local statuses = read and type(about) == 'table' and about.statuses
    for _, one in ipairs(type(statuses) == 'table' and statuses or {}) do
      if one == status then wanted[stored[i]] = '' end
    end
  end
  local endpoint, sealed = string.match(of.webhook or '', '^(%S+) (%S+)$')
  if endpoint then wanted[endpoint] = sealed end
  return wanted
end

-- An endpoint has something to be tried at a time. One that is paused is not tried earlier for it.
local function due_at(endpoints_due, paused, endpoint, at)
  redis.call('ZADD', endpoints_due, redis.call('EXISTS', paused) == 1 and 'NX' or 'LT', at, endpoint)
end

-- Owe an endpoint the event of a response's end.
local function owe(of, status, place, endpoint, sealed)
  local now, name = now_ms(), endpoint .. ' ' .. status .. ' ' .. of.id
  local delivery, due = of.delivery_prefix .. name, of.due_prefix .. endpoint
  keep_only('hash', delivery)
  keep_only('zset', due)
  keep_only('zset', of.endpoints_due)
  redis.call('HSET', delivery, 'owner', of.owner, 'model', of.model or '', 'metadata', of.metadata or '', 'place', place,
    'since', now, 'attempts', 0, 'sealed', sealed, 'headers', of.headers or '')
  redis.call('PEXPIRE', delivery, of.delivery_ms)
  redis.call('ZADD', due, now, name)
  redis.call('PEXPIRE', due, of.delivery_ms)
  due_at(of.endpoints_due, of.paused_prefix .. endpoint, endpoint, now)
  redis.call('PEXPIRE', of.endpoints_due, of.delivery_ms)
  redis.call('PUBLISH', of.endpoints_due, endpoint)
end

-- Add to what an owner has used of a model on a day.
-- of: the owner, its usage of the day, usage_owners of the shard, and usage_ms
-- spent: amounts, a tab and the model, see `spent.py`
local function count(of, spent)
  local amounts, model = string.match(spent, '^([^\t]*)\t(.*)$')
  for measure, amount in string.gmatch(amounts, '(%l+) (%d+)') do
    local sum = redis.call('HINCRBY', of.usage, measure .. ' ' .. model, amount)
    if measure == 'requests' and sum == tonumber(amount) then -- the first of this model today
      local now, kept_ms = now_ms(), tonumber(of.usage_ms)
      redis.call('PEXPIRE', of.usage, kept_ms)
      redis.call('ZADD', of.usage_owners, now + kept_ms, of.owner)
      redis.call('PEXPIRE', of.usage_owners, kept_ms)
      local left = redis.call('ZRANGEBYSCORE', of.usage_owners, '-inf', now, 'LIMIT', 0, 32)
      if #left > 0 then redis.call('ZREM', of.usage_owners, unpack(left)) end
    end
  end
end

-- What a response has used, as far as somebody has told: the first of these texts that is not empty.
local function told(...)
  for _, one in ipairs({...}) do
    if one and one ~= '' then return one end
  end
end

-- Give a response a status, or remove it (`deleted`). No script writes a status anywhere else.
-- of: the response: id, record, owner, model, metadata, and its present status if it has one;
--     the feed of its shard: feed, feed_most, feed_ms, and its tally: tally, tally_ms;
--     where it ends also log, owned, ended, ttl_ms, index_ttl_ms, and idempotency if it has one,
--     and for its webhooks hooks, webhook, headers, endpoints, endpoints_due, due_prefix, delivery_prefix, paused_prefix, delivery_ms
--     where it ends or is removed before its end also spent, and for that usage, usage_owners, usage_ms
-- …: field, value … of the record, which are set together with the status
local function transition(of, status, ...)
  local since = of.status ~= status and tell(of, status)
  if of.spent then pcall(count, of, of.spent) end -- nor must what was broken by hand there
  if status == 'deleted' then
    remove(of)
  elseif since then
    redis.call('HSET', of.record, 'status', status, 'since', since, ...)
  else
    redis.call('HSET', of.record, ...)
  end
  if TERMINAL[status] then
    expire(of)
    for endpoint, sealed in pairs(wanted_by(of, status)) do
      pcall(owe, of, status, since, endpoint, sealed) -- what was broken by hand there must not keep it from ending
    end
  end
end
