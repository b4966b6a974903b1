-- failover.lua: wrk sends a number of requests, counts who answered, and says when half and when all are answered.
--
-- wrk itself knows only durations. Here each of its threads counts its answers and writes "half" and "done" to the pipe
-- that the environment variable PROGRESS names, so that bench/failover.py kills a target in the middle of the load,
-- whatever the machine's speed, and ends wrk when the last answer is in.

local threads = {}

function setup(thread)
	thread:set("quota", math.ceil(tonumber(os.getenv("REQUESTS")) / 2)) -- wrk runs with two threads
	table.insert(threads, thread)
end

local function tell(word)
	local pipe = assert(io.open(os.getenv("PROGRESS"), "w"))
	pipe:write(word, "\n")
	pipe:close()
end

function init(arguments)
	answered = 0
	bad = 0
	before, after = {}, {} -- answers by target, in each half
end

function response(status, headers, body)
	answered = answered + 1
	local target = headers["X-Target"] or headers["x-target"] or "nobody" -- HAProxy, for one, writes names small
	if status ~= 200 then
		bad = bad + 1
		target = target .. " " .. status
	end
	local half = answered <= quota / 2 and before or after
	half[target] = (half[target] or 0) + 1
	if answered == math.floor(quota / 2) then
		tell("half")
	elseif answered == quota then
		tell("done")
		wrk.thread:stop()
	end
end

local function counts(name)
	local sum = {}
	for _, thread in ipairs(threads) do
		for target, count in pairs(thread:get(name)) do
			sum[target] = (sum[target] or 0) + count
		end
	end
	local parts = {}
	for target, count in pairs(sum) do
		table.insert(parts, string.format('"%s": %d', target, count))
	end
	return "{" .. table.concat(parts, ", ") .. "}"
end

function done(summary, latency, requests)
	local answered_sum, bad_sum = 0, 0
	for _, thread in ipairs(threads) do
		answered_sum = answered_sum + thread:get("answered")
		bad_sum = bad_sum + thread:get("bad")
	end
	io.write(string.format(
		'RESULT {"answered": %d, "not_200": %d, "p50_us": %d, "p99_us": %d, "max_us": %d, ' ..
		'"errors": {"connect": %d, "read": %d, "write": %d, "timeout": %d, "status": %d}, "before": %s, "after": %s}\n',
		answered_sum, bad_sum, latency:percentile(50), latency:percentile(99), latency.max,
		summary.errors.connect, summary.errors.read, summary.errors.write, summary.errors.timeout, summary.errors.status,
		counts("before"), counts("after")))
end
