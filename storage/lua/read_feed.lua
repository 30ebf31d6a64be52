#!lua flags=allow-oom
-- A page of a feed behind a place, with the ends of what is kept. From a primary only, see `read.lua`.
-- KEYS
--   feed
-- ARGV
--   after                          exclusive start: `<ms>-<number>`
--   most                           entries
-- Returns the time (ms), the ids of the oldest and the newest entry (empty where there is none), and the page.
local oldest = redis.call('XRANGE', feed, '-', '+', 'COUNT', 1)[1]
local newest = redis.call('XREVRANGE', feed, '+', '-', 'COUNT', 1)[1]
local page = redis.call('XRANGE', feed, '(' .. after, '+', 'COUNT', most)
return {now_ms(), oldest and oldest[1] or '', newest and newest[1] or '', page}
