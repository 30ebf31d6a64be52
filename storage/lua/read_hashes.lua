#!lua flags=allow-oom
-- Read all of some hashes of one shard. Only a primary may answer, see `read.lua`.
-- KEYS
--   hashes...
local found = {}
for i, hash in ipairs(hashes) do
  local row = redis.pcall('HGETALL', hash)
  -- A key that is not a hash (damaged by hand) counts as empty, so that the others are still found.
  found[i] = row.err and {} or row
end
return found
