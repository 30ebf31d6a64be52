#!lua flags=allow-oom
-- A page of a feed behind a place, and what is kept of the feed. From a primary only, see `read.lua`.
-- KEYS
--   feed
-- ARGV
--   after                          exclusive start: `<ms>-<number>`
--   most                           entries
-- Returns the time (ms), the ids of the oldest and the newest entry (empty where there is none), how many entries are
-- no longer kept, and the page.
local about = {length = 0, ['entries-added'] = 0}
local info = redis.pcall('XINFO', 'STREAM', feed)
if not info.err then
  for i = 1, #info, 2 do about[info[i]] = info[i + 1] end
end
local function id_of(entry) return type(entry) == 'table' and entry[1] or '' end
local dropped = about['entries-added'] - about.length
local page = redis.call('XRANGE', feed, '(' .. after, '+', 'COUNT', most)
return {now_ms(), id_of(about['first-entry']), id_of(about['last-entry']), dropped, page}
