#!lua flags=allow-oom
-- Renew leases, also those that ran out but were not reclaimed by another worker.
-- KEYS
--   leases
--   records...
-- ARGV
--   lease_ms:number
--   held...                        id, token of each record
local deadline = now_ms() + lease_ms
local outcomes = {}
for i, record in ipairs(records) do
  local id, token = held[2 * i - 1], held[2 * i]
  local r = redis.pcall('HMGET', record, 'status', 'token')
  if r.err or not r[1] then
    outcomes[i] = 'gone'
  elseif TERMINAL[r[1]] then
    outcomes[i] = 'over'
  elseif r[2] ~= token then
    outcomes[i] = 'stale'
  else
    redis.call('ZADD', leases, deadline, id)
    outcomes[i] = 'ok'
  end
end
return outcomes
