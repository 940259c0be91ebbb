-- Write down again that a peer is here, unless it is somewhere else by now.
-- KEYS: the peer's owner key, the room's set of peer ids.
-- ARGV: instance, connection, resume digest, info, peer id, lifetime in ms, now in ms.
-- Returns 1, or 0 where it is not ours any more.
local known = redis.call('HMGET', KEYS[1], 'instance', 'connection', 'digest', 'state')
if known[3] then
  local is_ours = known[1] == ARGV[1] and known[2] == ARGV[2]
  if known[3] ~= ARGV[3] or (known[4] == 'here' and not is_ours) then
    return 0
  end
end
redis.call('HSET', KEYS[1], 'instance', ARGV[1], 'connection', ARGV[2],
  'digest', ARGV[3], 'info', ARGV[4], 'state', 'here',
  'seen', ARGV[7])
redis.call('PEXPIRE', KEYS[1], ARGV[6])
redis.call('SADD', KEYS[2], ARGV[5])
redis.call('PEXPIRE', KEYS[2], ARGV[6])
return 1
