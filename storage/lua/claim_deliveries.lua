#!lua flags=allow-oom
-- Take some of the due deliveries, for a while: if their taker dies, they are due again after it.
-- KEYS
--   whole                          see `keys.py`
--   endpoints_due
-- ARGV
--   most:number                    deliveries
--   most_each:number               of one endpoint
--   claim_ms:number
--   token
--   due_prefix, delivery_prefix, paused_prefix, endpoints_prefix
--   passed_over...                 endpoints that this process can't tell more at the moment
-- Returns the deliveries: name, fields …, and what is stored of the endpoint.
local now, taken, passed = now_ms(), {}, {}
for _, endpoint in ipairs(passed_over) do passed[endpoint] = true end

local function take(endpoint, name)
  local delivery = delivery_prefix .. name
  local r = redis.pcall('HMGET', delivery, 'owner', 'model', 'metadata', 'place', 'since', 'sealed', 'headers')
  if r.err or not r[1] or not is_count(r[5]) or not string.match(name, '^%S+ %S+ %S+$') then return false end
  local attempt = redis.pcall('HINCRBY', delivery, 'attempts', 1)
  if type(attempt) == 'table' then return false end
  redis.call('HSET', delivery, 'token', token)
  local stored = redis.call('HGET', endpoints_prefix .. r[1], endpoint)
  taken[#taken + 1] = {name, r[1], r[2] or '', r[3] or '', r[4] or '', r[5], r[6] or '', attempt, r[7] or '', stored or ''}
  return true
end

keep_only('zset', endpoints_due)
for _, endpoint in ipairs(redis.call('ZRANGEBYSCORE', endpoints_due, '-inf', now, 'LIMIT', 0, 256)) do
  if #taken >= most then break end
  if not passed[endpoint] then
    local due = due_prefix .. endpoint
    -- A paused endpoint is probed with one.
    local paused = redis.call('EXISTS', paused_prefix .. endpoint) == 1
    local room = paused and 1 or most_each
    keep_only('zset', due)
    for _, name in ipairs(redis.call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', 0, math.min(room, most - #taken))) do
      if take(endpoint, name) then
        redis.call('ZADD', due, now + claim_ms, name)
      else
        redis.call('ZREM', due, name) -- it was kept for as long as it is worth, or was broken by hand
      end
    end
    local nearest = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')
    if nearest[2] then
      redis.call('ZADD', endpoints_due, paused and now + claim_ms or nearest[2], endpoint)
    else
      redis.call('ZREM', endpoints_due, endpoint)
    end
  end
end
return taken
