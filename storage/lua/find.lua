#!lua flags=allow-oom
-- The same fields of many records. From a primary only, see `read.lua`.
-- KEYS
--   records...
-- ARGV
--   fields...
local found = {}
for i, record in ipairs(records) do
  local row = redis.pcall('HMGET', record, unpack(fields))
  -- What is no record (broken by hand) must not hide the others: it is as good as none.
  found[i] = row.err and {} or row
end
return found
