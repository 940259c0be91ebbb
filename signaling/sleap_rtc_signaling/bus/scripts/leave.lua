-- Count a socket of an address no more.
-- KEYS: the address's counts. ARGV: instance. Returns how many this instance has left.
local left = redis.call('HINCRBY', KEYS[1], ARGV[1], -1)
if left <= 0 then
  redis.call('HDEL', KEYS[1], ARGV[1])
end
return left
