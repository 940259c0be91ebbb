-- Write a peer down as registered here, unless somebody else holds its id.
-- KEYS: the peer's owner key, the room's set of peer ids, the prefix of instance keys.
-- ARGV: instance, connection, resume digest, info, peer id, lifetime in ms, most peers
-- in the room, most ids in the room, the prefix of the room's owner keys, now in ms.
-- Returns "ok", "taken", "peers" or "ids".
local now = tonumber(ARGV[10])
local digest, state, until_ = unpack(
  redis.call('HMGET', KEYS[1], 'digest', 'state', 'until'))
if state == 'away' and now >= tonumber(until_) then
  digest = false
end
if digest and digest ~= ARGV[3] then
  return 'taken'
end
if state ~= 'here' then
  local here, ids, alive = 0, 0, {}
  for _, id in ipairs(redis.call('SMEMBERS', KEYS[2])) do
    local known = redis.call('HMGET', ARGV[9] .. id, 'state', 'instance', 'until')
    if not known[1] then
      redis.call('SREM', KEYS[2], id)
    elseif known[1] ~= 'away' or now < tonumber(known[3]) then
      ids = ids + 1
      if known[1] == 'here' then
        if alive[known[2]] == nil then
          alive[known[2]] = redis.call('EXISTS', KEYS[3] .. known[2]) == 1
        end
        if alive[known[2]] then
          here = here + 1
        end
      end
    end
  end
  if here >= tonumber(ARGV[7]) then
    return 'peers'
  end
  if not digest and ids >= tonumber(ARGV[8]) then
    return 'ids'
  end
end
redis.call('HSET', KEYS[1], 'instance', ARGV[1], 'connection', ARGV[2],
  'digest', ARGV[3], 'info', ARGV[4], 'state', 'here',
  'seen', ARGV[10])
redis.call('PEXPIRE', KEYS[1], ARGV[6])
redis.call('SADD', KEYS[2], ARGV[5])
redis.call('PEXPIRE', KEYS[2], ARGV[6])
return 'ok'
