-- Let go of a peer that is still ours: its id is reserved for a while.
-- KEYS: its owner key. ARGV: instance, connection, ms of the reservation, until when
-- its id is reserved and until when what is said to it waits, in ms. Returns 1, or 0 if it is not ours.
local known = redis.call('HMGET', KEYS[1], 'instance', 'connection')
if known[1] ~= ARGV[1] or known[2] ~= ARGV[2] then
  return 0
end
redis.call('HSET', KEYS[1], 'state', 'away',
  'until', ARGV[4], 'held_until', ARGV[5])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
