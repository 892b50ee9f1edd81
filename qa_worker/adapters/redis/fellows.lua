-- Who shares the limits: KEYS[1] the sorted set of them, by the time when they last said so. ARGV: the time ('' for the
-- server's clock), who asks, and after how many seconds of silence somebody is gone. Returns how many there are.
local now, who, gone_after_s = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) + tonumber(time[2]) / 1000000
end
redis.call('ZADD', KEYS[1], string.format('%.17g', now), who)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. string.format('%.17g', now - gone_after_s))
redis.call('EXPIRE', KEYS[1], gone_after_s)
return {redis.call('ZCARD', KEYS[1])}
