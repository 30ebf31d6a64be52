#!lua
-- Append batches to logs of one shard, set fields and renew the leases. Without allow-oom, a full server refuses this
-- script; `finish` has the flag, so that a run can still end.
-- Batches of one lease are numbered, so that a batch which is repeated after a later one does not reset its fields.
-- KEYS
--   whole                          see `keys.py`
--   leases
-- ARGV
--   lease_ms:number
--   record_prefix, log_prefix, moved_prefix
--   batches...                     for each: id, token, epoch, number of the batch, first, last, frames, how many words
--                                  of fields follow, and these words: field, value …
-- Returns for each batch its outcome and the last number in its log; or 'error' and the message.
local deadline = now_ms() + lease_ms

local function append(at, words)
  local id, token, epoch, batch, first, last, frames = unpack(batches, at, at + 6)
  local record = record_prefix .. id
  local r = redis.call('HMGET', record, 'status', 'token', 'epoch', 'last', 'batch')
  if not r[1] then return 'gone', -1 end
  local current = tonumber(r[4]) or -1
  if TERMINAL[r[1]] then return 'over', current end
  if r[2] ~= token or r[3] ~= epoch then return 'stale', current end

  local repeated = tonumber(batch) <= (tonumber(r[5]) or 0)
  local fresh = not repeated and frames ~= '' and tonumber(last) > current -- otherwise it can only set fields
  if fresh and tonumber(first) ~= current + 1 then return 'gap', current end
  local position = epoch .. '-' .. last
  if fresh then
    redis.call('XADD', log_prefix .. id, position, 'f', frames)
    redis.call('HSET', record, 'last', last, 'batch', batch, unpack(batches, at + 8, at + 7 + words))
  elseif words > 0 and not repeated then
    redis.call('HSET', record, 'batch', batch, unpack(batches, at + 8, at + 7 + words))
  end
  redis.call('ZADD', leases, deadline, id)
  if fresh then redis.call('PUBLISH', moved_prefix .. id, position) end
  return 'ok', math.max(current, tonumber(last))
end

local outcomes, at = {}, 1
while at <= #batches do
  local words = tonumber(batches[at + 7])
  -- A record that was damaged by hand must not keep the other batches from being appended.
  local done, outcome, detail = pcall(append, at, words)
  if not done then
    outcome, detail = 'error', type(outcome) == 'table' and outcome.err or tostring(outcome)
  end
  outcomes[#outcomes + 1] = outcome
  outcomes[#outcomes + 1] = detail
  at = at + 8 + words
end
return outcomes
