#!lua flags=allow-oom
-- Read fields of a record, and a page of the events behind a cursor, in one atomic step. It has no `no-writes` flag, so
-- that replicas refuse it: a former primary that is still copying its data would find no record, and clients got a 404.
-- KEYS
--   record, log
-- ARGV
--   start                          exclusive start of the log: `<epoch>-<last>`
--   most:number                    entries
--   most_bytes:number              a rough limit: the page may end a little above it
--   unless_final                   1: leave the log alone where a final snapshot is stored
--   names...                       of the fields
local fields = redis.call('HMGET', record, unpack(names))
if unless_final == '1' and redis.call('HEXISTS', record, 'snapshot') == 1 then
  return {fields, {}}
end
local page = {}
while #page < most and most_bytes > 0 do
  -- Read a few at a time, because an entry may be as small as a delta or as large as a picture.
  local some = redis.call('XRANGE', log, '(' .. start, '+', 'COUNT', math.min(4, most - #page))
  if #some == 0 then break end
  for _, entry in ipairs(some) do
    page[#page + 1] = entry
    most_bytes = most_bytes - #entry[2][2]
    start = entry[1]
  end
end
return {fields, page}
