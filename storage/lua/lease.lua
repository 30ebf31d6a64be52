#!lua flags=allow-oom
-- Take one job: first one whose lease ran out, then the next of the owner whose turn it is.
-- KEYS: leases, rotation, grant
-- ARGV: token, lease ms, max attempts, max age ms, until when to reclaim (ms), prefixes: record, log, queue, moved
-- Returns the time (ms), and 'none' (nothing to do), 'again' (looked at many that were over), or 'job' and the job.
local leases, rotation, grant = unpack(KEYS)
local token, lease_ms, max_attempts, max_age_ms = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local record_prefix, log_prefix, queue_prefix, moved_prefix = unpack(ARGV, 6, 9)
local now = now_ms()
local reclaim = now <= tonumber(ARGV[5])

local function job(id)
  local fields = redis.call('HMGET', record_prefix .. id, 'token', 'owner', 'verdict', 'epoch', 'attempt', 'last',
    'stream', 'created_at', 'model', 'pinned', 'previous', 'deployment', 'provider_id', 'upstream_last', 'request_id', 'headers', 'request')
  return {now, 'job', id, unpack(fields)}
end

-- A rerun starts the log again: the lifecycle events once more, under a new epoch.
local function restart(id, epoch)
  local log = log_prefix .. id
  local head = redis.call('XRANGE', log, epoch .. '-0', epoch .. '-2')
  redis.call('DEL', log)
  for _, entry in ipairs(head) do
    redis.call('XADD', log, (epoch + 1) .. '-' .. string.match(entry[1], '%-(%d+)$'), 'f', entry[2][2])
  end
  redis.call('HDEL', record_prefix .. id, 'base', 'provider_id', 'deployment')
end

local function start(id)
  local record = record_prefix .. id
  local r = redis.call('HMGET', record, 'status', 'epoch', 'attempt', 'last', 'stream', 'queued_ms', 'started',
    'survivable', 'provider_id', 'created_at', 'owner')
  if not (r[1] and r[2] and r[3] and r[4] and r[6] and r[10] and r[11]) or TERMINAL[r[1]] then
    -- Gone, over, or not a whole record (broken by hand): it must not stop the others.
    redis.call('ZREM', leases, id)
    if not r[1] then redis.call('DEL', log_prefix .. id) end
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
  redis.call('HSET', record, 'status', 'in_progress', 'token', token, 'verdict', verdict,
    'epoch', epoch, 'attempt', attempt, 'last', last)
  redis.call('ZADD', leases, now + lease_ms, id)
  redis.call('SET', grant, id, 'PX', lease_ms)
  redis.call('PUBLISH', moved_prefix .. id, epoch .. '-' .. last)
  return job(id)
end

local granted = redis.call('GET', grant)
if granted then -- this call ran before: the same job again, or none if it has been lost since
  local r = redis.call('HMGET', record_prefix .. granted, 'status', 'token')
  return r[2] == token and not TERMINAL[r[1]] and job(granted) or {now, 'none'}
end

if reclaim then
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', now, 'LIMIT', 0, 16)) do
    local taken = start(id)
    if taken then return taken end
  end
end

for _ = 1, 64 do
  local owner = redis.call('ZRANGE', rotation, 0, 0)[1]
  if not owner then return {now, 'none'} end
  local queue = queue_prefix .. owner
  local popped = redis.call('ZPOPMIN', queue)
  if redis.call('EXISTS', queue) == 1 then
    redis.call('ZADD', rotation, last_turn(rotation), owner)
  else
    redis.call('ZREM', rotation, owner)
  end
  local taken = popped[1] and start(popped[1])
  if taken then return taken end
end
return {now, 'again'}
