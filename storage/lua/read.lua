#!lua flags=allow-oom
-- One atomic look: fields, and a page of the events behind a cursor. Not flagged no-writes, so that only a primary
-- answers: a former one that is being filled anew would have nothing to show, and that would be taken for a 404.
-- KEYS
--   record, log
-- ARGV
--   start                          exclusive start of the log: `<epoch>-<last>`
--   most:number                    entries
--   most_bytes:number              about
--   unless_final                   1: leave the log alone where a final snapshot is stored
--   names...                       of the fields
local fields = redis.call('HMGET', record, unpack(names))
if unless_final == '1' and redis.call('HEXISTS', record, 'snapshot') == 1 then
  return {fields, {}}
end
local page = {}
while #page < most and most_bytes > 0 do
  -- A few at a time: an entry may be a delta, or a picture.
  local some = redis.call('XRANGE', log, '(' .. start, '+', 'COUNT', math.min(4, most - #page))
  if #some == 0 then break end
  for _, entry in ipairs(some) do
    page[#page + 1] = entry
    most_bytes = most_bytes - #entry[2][2]
    start = entry[1]
  end
end
return {fields, page}
