#!lua flags=no-writes
-- The same fields of many records.
-- KEYS: records
-- ARGV: fields
local found = {}
for i, record in ipairs(KEYS) do
  found[i] = redis.call('HMGET', record, unpack(ARGV))
end
return found
