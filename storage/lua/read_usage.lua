#!lua flags=allow-oom
-- Read what an owner has used on some days. Only a primary may answer, see `read.lua`.
-- KEYS
--   days...
local found = {}
for i, day in ipairs(days) do
  local used = redis.pcall('HGETALL', day)
  -- A key that is not a hash (damaged by hand) counts as no usage, so that the other days are still found.
  found[i] = used.err and {} or used
end
return found
