-- Count a socket of an address, unless all instances together have the most.
-- KEYS: the address's counts, the prefix of instance keys.
-- ARGV: instance, the most, lifetime in ms. Returns 1, or 0 where there are too many.
local sum = 0
local counts = redis.call('HGETALL', KEYS[1])
for i = 1, #counts, 2 do
  if counts[i] ~= ARGV[1] and redis.call('EXISTS', KEYS[2] .. counts[i]) == 0 then
    redis.call('HDEL', KEYS[1], counts[i])
  else
    sum = sum + tonumber(counts[i + 1])
  end
end
if sum >= tonumber(ARGV[2]) then
  return 0
end
redis.call('HINCRBY', KEYS[1], ARGV[1], 1)
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
