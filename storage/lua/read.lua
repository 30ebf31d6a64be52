#!lua flags=allow-oom
-- One atomic look: fields, and a page of the events behind a cursor. Not flagged no-writes, so that only a primary
-- answers: a former one that is being filled anew would have nothing to show, and that would be taken for a 404.
-- KEYS: record, log
-- ARGV: exclusive start of the log (`<epoch>-<last>`), how many entries at most, how many bytes (about),
--       1 to leave the log alone where a final snapshot is stored; then the fields
local start, count, bytes = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local fields = redis.call('HMGET', KEYS[1], unpack(ARGV, 5))
if ARGV[4] == '1' and redis.call('HEXISTS', KEYS[1], 'snapshot') == 1 then
  return {fields, {}}
end
local page = {}
while #page < count and bytes > 0 do
  -- A few at a time: an entry may be a delta, or a picture.
  local some = redis.call('XRANGE', KEYS[2], '(' .. start, '+', 'COUNT', math.min(4, count - #page))
  if #some == 0 then break end
  for _, entry in ipairs(some) do
    page[#page + 1] = entry
    bytes = bytes - #entry[2][2]
    start = entry[1]
  end
end
return {fields, page}
