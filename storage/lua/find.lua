#!lua flags=allow-oom
-- Read the same fields of many records, or of other hashes of one shard. Only a primary may answer, see `read.lua`.
-- KEYS
--   records...
-- ARGV
--   fields...
local found = {}
for i, record in ipairs(records) do
  local row = redis.pcall('HMGET', record, unpack(fields))
  -- A key that is not a hash (damaged by hand) counts as no record, so that the others are still found.
  found[i] = row.err and {} or row
end
return found
