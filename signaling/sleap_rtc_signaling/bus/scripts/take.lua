-- Take tokens from a bucket.
-- KEYS: the bucket. ARGV: burst, tokens per second, how many to take.
-- Returns 0 if they were there, else after how many ms they would be.
local burst, per_s, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000 + time[2] / 1000
local known = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens, at = tonumber(known[1]) or burst, tonumber(known[2]) or now
tokens = math.min(burst, tokens + math.max(0, now - at) / 1000 * per_s)
if tokens < cost then
  return math.ceil((cost - tokens) / per_s * 1000)
end
redis.call('HSET', KEYS[1], 'tokens', tostring(tokens - cost), 'at', tostring(now))
redis.call('PEXPIRE', KEYS[1], math.ceil(burst / per_s * 1000) + 1000)
return 0
