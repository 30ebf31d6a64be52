#!lua
-- Keep a response that has ended, and that no job of ours made: only its record, without a log, an event or a place in
-- its owner's index. Without allow-oom, because a full server must take nothing new.
-- KEYS
--   record
--   kept                           finds it by the digits in the ids of its items
-- ARGV
--   id
--   ttl_ms:number
--   fields...                      field, value … of the record
redis.call('HSET', record, unpack(fields))
redis.call('PEXPIRE', record, ttl_ms)
redis.call('SET', kept, id, 'PX', ttl_ms)
return 'ok'
