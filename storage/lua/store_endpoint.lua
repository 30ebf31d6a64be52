#!lua
-- Write an owner's webhook endpoint, unless somebody else has changed or removed it since its writer read it. Without
-- allow-oom, because a full server must take nothing new.
-- KEYS
--   endpoints
-- ARGV
--   endpoint
--   before                         what its writer has read; empty for a new one
--   about                          what is to be stored
--   most:number                    endpoints of this owner
-- Returns 'ok', 'changed', or 'full' where a new one is one too many.
keep_only('hash', endpoints)
local current = redis.call('HGET', endpoints, endpoint)
if current == about then return 'ok' end -- this call ran before
if (current or '') ~= before then return 'changed' end
if not current and #redis.call('HGETALL', endpoints) / 2 >= most then return 'full' end
redis.call('HSET', endpoints, endpoint, about)
return 'ok'
