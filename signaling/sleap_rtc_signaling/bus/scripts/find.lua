-- Find out where a peer is.
-- KEYS: its owner key, the prefix of instance keys.
-- ARGV: for how many ms after it was seen last a peer of a dead instance may come back,
-- now in ms.
-- Returns its instance and "here", "away" or "gone"; nothing where nobody knows its id.
local known = redis.call('HMGET', KEYS[1], 'instance', 'state', 'held_until', 'seen', 'until')
if not known[1] then
  return false
end
if known[2] == 'here' and redis.call('EXISTS', KEYS[2] .. known[1]) == 1 then
  return {known[1], 'here'}
end
local now = tonumber(ARGV[2])
if known[2] == 'away' and now >= tonumber(known[5]) then
  return false
end
local until_ = tonumber(known[3]) or 0
if known[2] == 'here' then
  until_ = (tonumber(known[4]) or 0) + ARGV[1]
end
return {known[1], now < until_ and 'away' or 'gone'}
