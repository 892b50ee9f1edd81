-- One model's token buckets: see domain/bucket.py, which this repeats operation by operation.
-- KEYS[1] the hash. ARGV: what to do, the time ('' for the server's clock), burst_s, double_s, book_ahead_s, use, slack_s,
-- peak, regrow, idle_s, probe_lease_s, three assumed limits, and the operands. Returns strings: numbers would be cut to
-- integers.
local LONGEST_WAIT_S, UNLEARNT_WAIT_S, CUT, LOWEST_CEILING, GROWTH_STEP_S, KEPT_S = 60, 5, 0.85, 0.2, 1, 3600
local LEAST, FIRST, NEWEST, STANDING_BY = 1e-9, {1, 10000, 1000}, 0.1, 2
local LOAD_STEP_S, LEAST_LOAD, EASE_EVERY_S = 2.5, 0.125, 1

local act, now = ARGV[1], tonumber(ARGV[2])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) + tonumber(time[2]) / 1000000
end
local burst_s, double_s, book_ahead_s, use = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local slack_s, peak, regrow, idle_s = tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
local probe_lease_s = tonumber(ARGV[11])
local start = {tonumber(ARGV[12]), tonumber(ARGV[13]), tonumber(ARGV[14])}
local OPERANDS = 14

local at, paced_at, pace, ceiling, lead, queue, paused_until, capped_until, eased, eased_at
local limit, level, learnt, usual, rate, full = {}, {}, {}, {}, {}, {}

local function derive()
  for m = 1, 3 do
    rate[m] = use * limit[m] / 60
    full[m] = burst_s * rate[m]
  end
end

local function load()
  local h = redis.call('HMGET', KEYS[1], 'at', 'paced_at', 'pace', 'ceiling', 'lead', 'queue', 'paused_until',
    'limit1', 'limit2', 'limit3', 'level1', 'level2', 'level3', 'learnt1', 'learnt2', 'learnt3',
    'usual1', 'usual2', 'usual3', 'capped_until', 'eased', 'eased_at')
  if not h[1] then
    at, paced_at, pace, ceiling, lead, queue, paused_until = now, now, 1, peak, slack_s, 0, 0
    capped_until, eased, eased_at = 0, 1, 0
    for m = 1, 3 do limit[m], learnt[m], usual[m] = start[m], 0, 0 end
    derive()
    for m = 1, 3 do level[m] = full[m] end
    return
  end
  for i = 1, 22 do h[i] = tonumber(h[i]) end
  at, paced_at, pace, ceiling, lead, queue, paused_until = h[1], h[2], h[3], h[4], h[5], h[6], h[7]
  -- A state that an older version has written knows nothing of what is usual, of a spend limit, of overload.
  capped_until, eased, eased_at = h[20] or 0, h[21] or 1, h[22] or 0
  for m = 1, 3 do limit[m], level[m], learnt[m], usual[m] = h[7 + m], h[10 + m], h[13 + m], h[16 + m] or 0 end
  derive()
end

local function exact(number)
  return string.format('%.17g', number)
end

local function save()
  redis.call('HSET', KEYS[1], 'at', exact(at), 'paced_at', exact(paced_at), 'pace', exact(pace),
    'ceiling', exact(ceiling), 'lead', exact(lead), 'queue', exact(queue), 'paused_until', exact(paused_until),
    'limit1', exact(limit[1]), 'limit2', exact(limit[2]), 'limit3', exact(limit[3]),
    'level1', exact(level[1]), 'level2', exact(level[2]), 'level3', exact(level[3]),
    'learnt1', learnt[1], 'learnt2', learnt[2], 'learnt3', learnt[3],
    'usual1', exact(usual[1]), 'usual2', exact(usual[2]), 'usual3', exact(usual[3]), 'capped_until', exact(capped_until),
    'eased', exact(eased), 'eased_at', exact(eased_at))
  redis.call('EXPIRE', KEYS[1], KEPT_S + math.ceil(math.max(0, paused_until - now, capped_until - now)))
end

local function fill()
  local passed = math.max(0, now - at)
  for m = 1, 3 do level[m] = math.min(full[m], level[m] + rate[m] * passed) end
  at = now
end

local function top(share, kept_s)
  return (slack_s - (kept_s or 0)) * math.min(1, pace) * share
end

local function load_now()
  local passed = now - eased_at
  if passed < 0 then return 1 end
  return math.min(1, eased * 2 ^ math.min(math.floor(passed / LOAD_STEP_S), 30))
end

local function ease()
  local passed = now - eased_at
  if passed >= 0 and passed < EASE_EVERY_S then return end
  eased = math.max(LEAST_LOAD, load_now() / 2)
  eased_at = now
end

local function has_learnt()
  return math.max(learnt[1], learnt[2], learnt[3]) > 0
end

local function grown(passed)
  local faster = pace < ceiling and math.min(ceiling, pace * 2 ^ (passed / double_s)) or pace + regrow * passed
  return math.min(faster, has_learnt() and peak or 1)
end

local function is_first()
  return usual[1] == 0 and usual[2] == 0 and usual[3] == 0
end

local function slowed(before, after)
  if is_first() then return math.min(1, before[1] / after[1], before[2] / after[2], before[3] / after[3]) end
  local was = math.max(usual[1] / before[1], usual[2] / before[2], usual[3] / before[3])
  return math.min(1, math.max(usual[1] / after[1], usual[2] / after[2], usual[3] / after[3]) / was)
end

local function advance(share)
  local passed = math.max(0, now - paced_at)
  if passed >= idle_s then
    pace = math.min(pace, slowed(start, limit))
  end
  lead = math.max(lead, -2 * book_ahead_s * pace * share) + passed * pace * share
  lead = math.min(lead, top(share))
  if lead < top(share) / 2 then pace = grown(math.min(passed, GROWTH_STEP_S)) end
  local drained = math.max(0, now - math.max(paced_at, paused_until)) * share
  queue = math.max(0, queue - drained)
  paced_at = now
end

local function refuse(wait, cost)
  wait = wait + queue
  queue = math.min(has_learnt() and LONGEST_WAIT_S or UNLEARNT_WAIT_S, queue + cost)
  return 0, wait, 0
end

-- What of lead and levels is there for a request that leaves so many seconds of them to others.
local function free(share, kept_s)
  local levels = {}
  for m = 1, 3 do levels[m] = level[m] - kept_s * rate[m] end
  return lead - kept_s * math.min(1, pace) * share, levels
end

local function reserve(need, share, kept_s)
  share = share * load_now()
  local cost = math.max(need[1] / rate[1], need[2] / rate[2], need[3] / rate[3])
  fill()
  advance(share)
  if capped_until > now then return 0, capped_until - now, 0 end
  if paused_until > now then return refuse(paused_until - now, cost) end
  local speed = pace * share
  local own_lead, own = free(share, kept_s)
  local ahead = math.max(0, -own_lead / speed, -own[1] / rate[1], -own[2] / rate[2], -own[3] / rate[3])
  if ahead > book_ahead_s then return refuse(ahead - book_ahead_s / 2, cost) end
  local wait = math.max(0, (math.min(cost, top(share, kept_s)) - own_lead) / speed)
  for m = 1, 3 do wait = math.max(wait, (math.min(need[m], (burst_s - kept_s) * rate[m]) - own[m]) / rate[m]) end
  for m = 1, 3 do level[m] = math.min(level[m], (burst_s - wait) * rate[m]) - need[m] end
  lead = lead - cost
  local first = is_first()
  for m = 1, 3 do usual[m] = first and need[m] or usual[m] + NEWEST * (need[m] - usual[m]) end
  if capped_until == 0 then return 1, wait, 0 end
  capped_until = now + wait + probe_lease_s
  return 1, wait, 1
end

local function room(within_s, share, kept_s)
  share = share * load_now()
  fill()
  advance(share)
  local open_s = within_s - math.max(0, paused_until - now)
  if open_s <= 0 or capped_until > now then return 0 end
  local need = is_first() and FIRST or usual
  local cost = math.max(need[1] / rate[1], need[2] / rate[2], need[3] / rate[3])
  local own_lead, own = free(share, kept_s)
  local most = (own_lead + grown(open_s / 2) * share * open_s) / cost
  for m = 1, 3 do most = math.min(most, (own[m] + rate[m] * open_s) / math.max(need[m], LEAST)) end
  if capped_until > 0 then most = math.min(most, STANDING_BY) end
  return math.max(0, most)
end

local function settle(change)
  fill()
  for m = 1, 3 do level[m] = math.min(full[m], level[m] + change[m]) end
end

local function pause(seconds)
  if paused_until <= now then
    ceiling = math.max(LOWEST_CEILING, CUT * math.min(1, pace))
    pace = math.min(pace, ceiling / 2)
  end
  paused_until = math.max(paused_until, now + seconds)
end

-- Whether this was new.
local function cap(seconds, is_probe)
  if capped_until > now and is_probe ~= 1 then return 0 end
  capped_until = seconds > 0 and now + seconds or 0
  return 1
end

local function booked_seconds()
  local now_lead = lead + math.max(0, now - paced_at) * pace
  local behind = math.max(0, -now_lead / pace, -level[1] / rate[1], -level[2] / rate[2], -level[3] / rate[3])
  return behind * math.min(1, pace)
end

local function learn(limits, left)
  fill()
  local booked, was_limit = booked_seconds(), {limit[1], limit[2], limit[3]}
  for m = 1, 3 do
    local was_full = full[m]
    if limits[m] then limit[m], learnt[m] = limits[m], 1 end
    derive()
    level[m] = level[m] + (full[m] - was_full)
    if left[m] then level[m] = math.min(level[m], left[m] - booked * rate[m]) end
  end
  local slower = slowed(was_limit, limit)
  pace = pace * slower
  queue = queue * slower
end

local function operands(first)
  first = OPERANDS + first
  return {tonumber(ARGV[first]), tonumber(ARGV[first + 1]), tonumber(ARGV[first + 2])}
end

load()
local granted, wait, probe = 1, 0, 0
if act == 'reserve' then
  granted, wait, probe = reserve(operands(1), tonumber(ARGV[OPERANDS + 4]), tonumber(ARGV[OPERANDS + 5]))
elseif act == 'settle' then
  settle(operands(1))
elseif act == 'pause' then
  pause(tonumber(ARGV[OPERANDS + 1]))
elseif act == 'ease' then
  ease()
elseif act == 'cap' then
  granted = cap(tonumber(ARGV[OPERANDS + 1]), tonumber(ARGV[OPERANDS + 2]))
elseif act == 'learn' then
  learn(operands(1), operands(4))
elseif act == 'room' then
  return {exact(room(tonumber(ARGV[OPERANDS + 1]), tonumber(ARGV[OPERANDS + 2]), tonumber(ARGV[OPERANDS + 3])))}
elseif act == 'status' then
  fill()
  return {exact(limit[1]), exact(limit[2]), exact(limit[3]), exact(level[1]), exact(level[2]), exact(level[3]),
    tostring(learnt[1]), tostring(learnt[2]), tostring(learnt[3]),
    capped_until > 0 and exact(math.max(0, capped_until - now)) or '', exact(load_now())}
end
save()
return {granted, exact(wait), exact(math.max(0, paused_until - now)), exact(math.max(0, capped_until - now)), probe}
