-- The circuit breaker of one service: see domain/breaker.py (rules) and local.py (the same, in one process).
-- KEYS[1] the hash. ARGV: what to do, the time ('' for the server's clock), threshold, recovery_s, max_recovery_s,
-- probe_lease_s, ask_again_s, step_s, steps joined by commas, and the operands.
local SEEN, SHARE_OF_FAILURES, FORGOTTEN_AFTER_S, RELEASED_S, KEPT_S = 4, 0.6, 30, 1, 3600

local act, now = ARGV[1], tonumber(ARGV[2])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) + tonumber(time[2]) / 1000000
end
local threshold, recovery_s, max_recovery_s = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local probe_lease_s, ask_again_s, step_s = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local steps = {}
for step in string.gmatch(ARGV[9], '[^,]+') do steps[#steps + 1] = tonumber(step) end
local OPERANDS = 9

local h = redis.call('HMGET', KEYS[1], 'state', 'epoch', 'trips', 'until', 'probe', 'since', 'history', 'heard_at')
local state, epoch, trips, until_, probe = h[1] or 'closed', tonumber(h[2]) or 0, tonumber(h[3]) or 0, tonumber(h[4]) or 0, h[5] or ''
local since, history, heard_at = tonumber(h[6]) or 0, h[7] or '', tonumber(h[8]) or 0

local function exact(number)
  return string.format('%.17g', number)
end

local function save()
  redis.call('HSET', KEYS[1], 'state', state, 'epoch', epoch, 'trips', trips, 'until', exact(until_), 'probe', probe,
    'since', exact(since), 'history', history, 'heard_at', exact(heard_at))
  redis.call('EXPIRE', KEYS[1], KEPT_S + math.ceil(math.max(0, until_ - now)))
end

local function share()
  if state == 'closed' then return 1 end
  if state ~= 'recovering' then return 0 end
  return steps[math.floor(math.max(now - since, 0) / step_s) + 1] or 1
end

local function failures()
  local _, count = string.gsub(history, 'f', '')
  return count
end

-- The epoch counts openings: what left in an older one says nothing of the service now.
local function trip()
  epoch, trips, state, history, probe = epoch + 1, trips + 1, 'open', '', ''
  until_ = now + math.min(max_recovery_s, recovery_s * 2 ^ math.min(trips - 1, 30))
end

local function admit(lease)
  if state == 'closed' or state == 'recovering' then return {'0', '', exact(share()), epoch} end
  if now >= until_ then
    state, probe, until_ = 'probing', lease, now + probe_lease_s
    save()
    return {'0', lease, '1', epoch}
  end
  local left = until_ - now
  if state == 'probing' then left = math.min(ask_again_s, left) end
  return {exact(left), '', '1', epoch}
end

local function probed(verdict)
  probe = ''
  if verdict == 'up' then
    state, since, history, until_ = 'recovering', now, '', 0
  elseif verdict == 'down' then
    trip()
  else
    state, until_ = 'open', now + RELEASED_S
  end
  save()
end

local function heard(outcomes)
  if now - heard_at > FORGOTTEN_AFTER_S then history = '' end
  heard_at = now
  history = string.sub(history .. outcomes, -SEEN * threshold)
  local down = string.sub(history, -threshold) == string.rep('f', threshold)
  if down and failures() >= SHARE_OF_FAILURES * #history then trip() end
  save()
end

if state == 'recovering' and share() == 1 then
  state, trips = 'closed', 0
  save()
end
if act == 'admit' then
  return admit(ARGV[OPERANDS + 1])
elseif act == 'report' then
  local verdict, left_in, lease, outcomes = ARGV[OPERANDS + 1], tonumber(ARGV[OPERANDS + 2]), ARGV[OPERANDS + 3], ARGV[OPERANDS + 4]
  if lease ~= '' then
    if state == 'probing' and lease == probe then probed(verdict) end
  elseif (state == 'closed' or state == 'recovering') and left_in == epoch then
    heard(outcomes)
  end
  return {state, epoch}
end
return {state, exact(math.max(0, until_ - now)), failures(), exact(share())}
