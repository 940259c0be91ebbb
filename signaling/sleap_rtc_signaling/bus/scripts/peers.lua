-- List what is written of the peers that are registered in a room.
-- KEYS: the room's set of peer ids, the prefix of instance keys.
-- ARGV: the prefix of the room's owner keys.
local found, alive = {}, {}
for _, id in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  local known = redis.call('HMGET', ARGV[1] .. id, 'state', 'instance', 'info')
  if not known[1] then
    redis.call('SREM', KEYS[1], id)
  elseif known[1] == 'here' then
    if alive[known[2]] == nil then
      alive[known[2]] = redis.call('EXISTS', KEYS[2] .. known[2]) == 1
    end
    if alive[known[2]] then
      found[#found + 1] = known[3]
    end
  end
end
return found
