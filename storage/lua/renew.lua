#!lua flags=allow-oom
-- Renew leases. One that ran out but was not reclaimed lives again.
-- KEYS: leases, record …
-- ARGV: lease ms, then id, token for each record
local deadline = now_ms() + tonumber(ARGV[1])
local outcomes = {}
for i = 2, #KEYS do
  local id, token = ARGV[2 * i - 2], ARGV[2 * i - 1]
  local r = redis.pcall('HMGET', KEYS[i], 'status', 'token')
  if r.err or not r[1] then
    outcomes[i - 1] = 'gone'
  elseif TERMINAL[r[1]] then
    outcomes[i - 1] = 'over'
  elseif r[2] ~= token then
    outcomes[i - 1] = 'stale'
  else
    redis.call('ZADD', KEYS[1], deadline, id)
    outcomes[i - 1] = 'ok'
  end
end
return outcomes
