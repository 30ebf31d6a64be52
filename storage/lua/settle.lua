#!lua flags=allow-oom
-- Read what all processes on a store agree on. The first one decides it; one of a newer format raises the format.
-- With allow-oom, because a process must be able to start on a store that is full.
-- KEYS
--   settings
-- ARGV
--   shards                         that the config asks for; empty: it does not say
--   first_shards                   of a new store whose config does not say
--   id_secret                      drawn by the caller, for a new store
--   format:number                  that the caller writes
--   oldest_read:number             the oldest format that it reads
-- Returns the number of shards, the secret and the newest format, as they were before it was raised.
local r = redis.call('HMGET', settings, 'shards', 'id_secret', 'format')
local newest = is_count(r[3]) and tonumber(r[3]) or 1
local is_new = not r[1] and not r[2]
if is_new then newest = format end
local fits = is_new or shards == '' or shards == r[1]
if not r[1] then redis.call('HSET', settings, 'shards', shards ~= '' and shards or first_shards) end
if not r[2] then redis.call('HSET', settings, 'id_secret', id_secret) end
if is_new or (fits and newest >= oldest_read and newest < format) then redis.call('HSET', settings, 'format', format) end
local kept = redis.call('HMGET', settings, 'shards', 'id_secret')
return {kept[1], kept[2], newest}
