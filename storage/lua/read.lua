#!lua flags=no-writes
-- One atomic look: fields, and the events behind a cursor.
-- KEYS: record, log
-- ARGV: exclusive start of the log (`<epoch>-<last>`), how many entries at most, then the fields.
-- With a count of -1 the log is read (whole) only where no final snapshot is stored.
local count = tonumber(ARGV[2])
local fields = redis.call('HMGET', KEYS[1], unpack(ARGV, 3))
if count == 0 or (count == -1 and redis.call('HEXISTS', KEYS[1], 'snapshot') == 1) then
  return {fields, {}}
elseif count == -1 then
  return {fields, redis.call('XRANGE', KEYS[2], '(' .. ARGV[1], '+')}
end
return {fields, redis.call('XRANGE', KEYS[2], '(' .. ARGV[1], '+', 'COUNT', count)}
