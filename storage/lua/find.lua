#!lua flags=allow-oom
-- The same fields of many records. From a primary only, see `read.lua`.
-- KEYS: records
-- ARGV: fields
local found = {}
for i, record in ipairs(KEYS) do
  found[i] = redis.call('HMGET', record, unpack(ARGV))
end
return found
