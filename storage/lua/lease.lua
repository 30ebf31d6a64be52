#!lua flags=allow-oom
-- Take one job: first one whose lease ran out, otherwise the next job of the owner whose turn it is.
-- Jobs that this worker can't do are left to other workers: those of some models, and those of a newer format.
-- KEYS
--   whole                          see `keys.py`
--   leases, rotation, grant, feed, tally
-- ARGV
--   token
--   worker                         the name of the process that takes it
--   lease_ms:number, max_attempts:number, max_age_ms:number
--   reclaim_until:number           the time (ms) until which this call may take jobs whose lease ran out; 0: none
--   format, newest_read:number      that the worker writes, and the newest one that it can read
--   record_prefix, log_prefix, queue_prefix, moved_prefix, owned_prefix
--   feed_most:number, feed_ms:number    entries that the feed keeps, and for how long
--   tally_ms                       for how long a tally is kept
--   passed_over...                 models
-- Returns the time (ms), a word, the ids of records that were set aside, and with the word 'job' how long (ms) it was
--       queued (empty if it was leased before), 1 if it was reclaimed, and the job.
--       'none': there is nothing to do. 'again': many jobs were looked at, all were over, and there are more.
--       'stale': a lease ran out, but the call came later than `reclaim_until`. The server or the caller stood still
--       meanwhile, and the worker that has the job may have had no chance to renew its lease.
local SPARE_ATTEMPTS = 3 -- attempts beyond the maximum, which only write the end of a job that is lost
local SET_ASIDE_MS = 86400000
local now = now_ms()
local PASSED_OVER = 256 -- how many jobs of one owner, or with leases that ran out, are searched for one that it can do
local aside, passed_models = {}, {}
for _, model in ipairs(passed_over) do passed_models[model] = true end

local function is_newer(its) return is_count(its) and tonumber(its) > newest_read end

local function job(id, waited_ms, reclaimed)
  local fields = redis.call('HMGET', record_prefix .. id, 'token', 'owner', 'verdict', 'epoch', 'attempt', 'last',
    'stream', 'created_at', 'model', 'pinned', 'previous', 'deployment', 'provider_id', 'upstream_last', 'request_id',
    'client_key', 'headers', 'request')
  return {now, 'job', aside, waited_ms, reclaimed, id, unpack(fields)}
end

-- Drop a job that can't be worked, so that workers don't try it for ever. Its record and log are kept for a day, so
-- that an operator can see what happened.
local function set_aside(id, owner)
  aside[#aside + 1] = id
  redis.call('ZREM', leases, id)
  redis.pcall('HDEL', record_prefix .. id, 'client_key')
  redis.pcall('PEXPIRE', record_prefix .. id, SET_ASIDE_MS)
  redis.pcall('PEXPIRE', log_prefix .. id, SET_ASIDE_MS)
  if owner then redis.pcall('ZREM', owned_prefix .. owner, id) end
end

-- Start the log again for a rerun: only the lifecycle events stay, under the next epoch.
local function restart(id, epoch)
  local log = log_prefix .. id
  local head = redis.call('XRANGE', log, epoch .. '-0', epoch .. '-2')
  redis.call('DEL', log)
  for _, entry in ipairs(head) do
    redis.call('XADD', log, (epoch + 1) .. '-' .. string.match(entry[1], '%-(%d+)$'), 'f', entry[2][2])
  end
  redis.call('HDEL', record_prefix .. id, 'base', 'provider_id', 'deployment')
end

local function start(id, reclaimed)
  local record = record_prefix .. id
  local r = redis.call('HMGET', record, 'status', 'epoch', 'attempt', 'last', 'stream', 'queued_ms', 'started',
    'survivable', 'provider_id', 'created_at', 'owner', 'upstream_last', 'model', 'metadata', 'format', 'life')
  if is_newer(r[15]) then return nil end
  if not r[1] and not r[11] then
    redis.call('ZREM', leases, id)
    redis.call('DEL', log_prefix .. id)
    return nil
  end
  if TERMINAL[r[1]] then
    redis.call('ZREM', leases, id)
    return nil
  end
  local whole = r[1] and r[11] and is_count(r[2]) and is_count(r[3]) and is_count(r[4]) and is_count(r[6])
    and is_count(r[10]) and (not r[12] or is_count(string.match(r[12], '^-?(%d+)$')))
  if not whole or tonumber(r[3]) >= max_attempts + SPARE_ATTEMPTS then
    set_aside(id, r[11])
    return nil
  end
  local epoch, attempt, last = tonumber(r[2]), tonumber(r[3]) + 1, tonumber(r[4])
  local verdict = 'run'
  if now - tonumber(r[6]) > max_age_ms then
    verdict = 'expired'
  elseif attempt > max_attempts then
    verdict = 'lost'
  elseif r[8] == '1' and r[9] and r[9] ~= '' then
    verdict = 'resume'
  elseif last > 2 and r[5] == '1' then
    verdict = 'lost'
  elseif last > 2 then
    restart(id, epoch)
    epoch, last = epoch + 1, 2
  end
  if r[7] then
    redis.call('XADD', log_prefix .. id, epoch .. '-2', 'f', r[7])
    redis.call('HDEL', record, 'started')
    last = 2
  end
  local of = {id = id, record = record, status = r[1], owner = r[11], model = r[13], metadata = r[14], feed = feed,
    feed_most = feed_most, feed_ms = feed_ms, tally = tally, tally_ms = tally_ms}
  transition(of, 'in_progress', 'token', token, 'verdict', verdict, 'epoch', epoch,
    'attempt', attempt, 'last', last, 'batch', 0, 'format', format,
    'life', lived(r[16], (reclaimed == 1 and 'reclaimed ' or 'leased ') .. attempt .. ' ' .. worker))
  redis.call('ZADD', leases, now + lease_ms, id)
  redis.call('SET', grant, id, 'PX', lease_ms)
  redis.call('PUBLISH', moved_prefix .. id, epoch .. '-' .. last)
  return job(id, r[7] and math.max(0, now - r[6]) or '', reclaimed)
end

-- Start a job; if its record breaks the script, set it aside, so that the other jobs still get their turn.
local function started(id, reclaimed)
  local done, taken = pcall(start, id, reclaimed)
  if done then return taken end
  set_aside(id)
  return nil
end

local granted = redis.call('GET', grant)
if granted then -- this call ran before: the same job again, or none if it has been lost since
  local r = redis.call('HMGET', record_prefix .. granted, 'status', 'token')
  return r[2] == token and not TERMINAL[r[1]] and job(granted, '', 0) or {now, 'none', aside}
end

if reclaim_until > 0 then
  local ran_out = redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, PASSED_OVER)
  if #ran_out > 0 and now > reclaim_until then return {now, 'stale', aside} end
  for _, id in ipairs(ran_out) do
    local taken = started(id, 1)
    if taken then return taken end
  end
end

-- Whether this worker can do a job. What has no record that can be read is no job, and is taken to be cleaned up.
local function can_do(id)
  local r = redis.pcall('HMGET', record_prefix .. id, 'model', 'format')
  return r.err or not (passed_models[r[1]] or is_newer(r[2]))
end

-- Take the next job that this worker can do out of an owner's queue. Mostly that is the first one.
local function take_from(queue)
  for _, part in ipairs({{0, 0}, {1, PASSED_OVER - 1}}) do
    for _, id in ipairs(redis.call('ZRANGE', queue, unpack(part))) do
      if can_do(id) then
        redis.call('ZREM', queue, id)
        return id
      end
    end
  end
  return nil
end

local passed = {} -- owners whose jobs this worker can't do
for _ = 1, 64 do
  local owner = redis.call('ZRANGE', rotation, 0, 0)[1]
  if not owner or passed[owner] then return {now, 'none', aside} end
  local queue = queue_prefix .. owner
  local id = take_from(queue)
  if redis.call('EXISTS', queue) == 1 then
    redis.call('ZADD', rotation, last_turn(rotation), owner)
    if not id then passed[owner] = true end
  else
    redis.call('ZREM', rotation, owner)
  end
  local taken = id and started(id, 0)
  if taken then return taken end
end
return {now, next(passed) and 'none' or 'again', aside}
