-- Let go of a peer that is still ours: its id is reserved for a while.
-- KEYS: its owner key. ARGV: instance, connection, ms of the reservation, ms for which
-- what is said to it waits. Returns 1, or 0 if it is not ours.
local known = redis.call('HMGET', KEYS[1], 'instance', 'connection')
if known[1] ~= ARGV[1] or known[2] ~= ARGV[2] then
  return 0
end
local now = redis.call('TIME')
redis.call('HSET', KEYS[1], 'state', 'away',
  'held_until', now[1] * 1000 + math.floor(now[2] / 1000) + ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
