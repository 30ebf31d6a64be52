#!lua
-- Add to what owners of one shard have used. Each count has a token, under which it counts once. Without allow-oom: on
-- a full server the counts wait in the process that has them.
-- KEYS
--   usage_owners
--   pairs...                       for each count: the owner's usage of the day, and the token
-- ARGV
--   usage_ms                       how long usage is kept
--   counts...                      for each count: owner, what was spent, how long (ms) the token is remembered
for i = 1, #pairs / 2 do
  local usage, token = pairs[2 * i - 1], pairs[2 * i]
  local owner, spent, token_ms = unpack(counts, 3 * i - 2, 3 * i)
  if redis.call('SET', token, 'counted', 'PX', token_ms, 'NX') then
    -- A key that was broken by hand must not keep the others from being counted.
    pcall(count, {usage = usage, usage_owners = usage_owners, usage_ms = usage_ms, owner = owner}, spent)
  end
end
