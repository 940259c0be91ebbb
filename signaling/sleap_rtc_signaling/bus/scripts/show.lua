-- Write down a peer's new metadata, if the peer is still ours.
-- KEYS: its owner key. ARGV: instance, connection, info. Returns 1, or 0 if it is not.
local known = redis.call('HMGET', KEYS[1], 'instance', 'connection')
if known[1] ~= ARGV[1] or known[2] ~= ARGV[2] then
  return 0
end
redis.call('HSET', KEYS[1], 'info', ARGV[3])
return 1
