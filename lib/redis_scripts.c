/* redis_scripts.c: what Redis does for the store, in Lua. Redis runs one script at a time: what a script reads stays so until it
 * has written. Numbers over 10^15 (microseconds of the day) are written with %.0f: Lua's own form would round them.
 *
 * None of them may run for long, for everybody waits meanwhile: a letter costs one step for each worker that has places at the
 * host, a heartbeat and a start a handful of steps.
 */
#include "redis_internal.h"

/* TIME in microseconds, and for how long this Redis has had the truth from its workers. The mark holds when that began, and which
   run of Redis it was: an empty database has no mark, and one that was loaded from a file has the mark of an earlier run. Until it is
   settle_us old nobody knows what the others have. A clock that went back must not hold us for ever. */
#define NOW_AND_AGE                                                                                    \
	"local t = redis.call('TIME')\n"                                                               \
	"local now = t[1] * 1000000 + t[2]\n"                                                          \
	"local mark = redis.call('GET', '" REDIS_MARKER "') or ''\n"                                    \
	"local born, run = tonumber(string.match(mark, '^%d+')), string.match(mark, ' (.+)$')\n"       \
	"if not born or born > now then\n"                                                             \
	"  born, run = now, '-'\n"                                                                     \
	"  redis.call('SET', '" REDIS_MARKER "', string.format('%.0f -', born))\n"                     \
	"end\n"                                                                                        \
	"local age = now - born\n"

/* KEYS index, own counter, waiting, wanted. ARGV host, worker, number of the letter, own, want, cap, ttl in ms, settle in us,
   whether a refused one waits, idle ones of own.
   Answers: 1 done, 0 settling, -1 an old letter; granted; the sum; workers with places; whether others have idle ones; us to wait. */
static const char letter[] = NOW_AND_AGE
	"local index, counter = KEYS[1], KEYS[2]\n"
	"local host, me, seq = ARGV[1], ARGV[2], tonumber(ARGV[3])\n"
	"local own, want, cap, ttl = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7]\n"
	"local settle = tonumber(ARGV[8])\n"
	/* A letter that was held up on its way must not undo a later one. */
	"local record = redis.call('HGET', index, me)\n"
	"if record and tonumber(string.match(record, '^%d+') or '0') > seq then return {-1, 0, 0, 0, 0, 0} end\n"
	"local others, workers, idle = 0, 1, 0\n"
	"local records = redis.call('HGETALL', index)\n"
	"for i = 1, #records, 2 do\n"
	"  if records[i] ~= me then\n"
	"    local value = redis.pcall('GET', '" REDIS_PREFIX "' .. host .. ':' .. records[i])\n"
	"    local count = type(value) == 'string' and tonumber(value) or 0\n"
	"    if count > 0 then\n"
	"      others = others + math.min(math.floor(count), 1000000)\n"
	"      workers = workers + 1\n"
	"      if string.match(records[i + 1], ' 1$') then idle = 1 end\n"
	"    elseif not value then\n"
	"      redis.call('HDEL', index, records[i])\n" /* it expired: the worker is dead */
	"    end\n"
	"  end\n"
	"end\n"
	"local granted = 0\n"
	"if want > 0 and age >= settle then granted = math.max(0, math.min(want, cap - others - own)) end\n"
	"local was = redis.pcall('GET', counter)\n"
	"was = type(was) == 'string' and tonumber(was) or 0\n"
	"local is = own + granted\n"
	"if is > 0 then\n"
	"  redis.call('SET', counter, is, 'PX', ttl)\n"
	"  redis.call('HSET', index, me, ARGV[3] .. (ARGV[10] ~= '0' and ' 1' or ' 0'))\n"
	"  redis.call('PEXPIRE', index, 2 * ttl)\n"
	"else\n"
	"  redis.call('DEL', counter)\n"
	"  redis.call('HDEL', index, me)\n"
	"end\n"
	"if is < was and redis.call('EXISTS', KEYS[3]) == 1 then\n"
	"  redis.call('PUBLISH', '" REDIS_EVENTS "', 'free ' .. me .. ' ' .. host)\n"
	"end\n"
	"if age < settle then return {0, 0, others + is, workers, 0, settle - age} end\n"
	"if granted < want then\n"
	"  if ARGV[9] ~= '0' or idle == 1 then redis.call('SET', KEYS[3], '1', 'PX', 2500) end\n"
	"  if others > 0 and redis.call('GET', KEYS[4]) ~= me then\n" /* ten times a second from each, while they don't take turns */
	"    redis.call('SET', KEYS[4], me, 'PX', 100)\n"
	"    redis.call('PUBLISH', '" REDIS_EVENTS "', 'wanted ' .. me .. ' ' .. host)\n"
	"  end\n"
	"end\n"
	"return {1, granted, others + is, workers, idle, 0}\n";

/* ARGV worker, us after which a silent one is dead, ms for which the turn to scan is taken, the run of Redis ("-": not known).
   Answers: since when Redis has had the truth, live workers, whether this worker is to look for foreign counters now. */
static const char heartbeat[] = NOW_AND_AGE
	"if ARGV[4] ~= '-' and run ~= ARGV[4] then\n"
	"  if run ~= '-' then born = now end\n"
	"  redis.call('SET', '" REDIS_MARKER "', string.format('%.0f ', born) .. ARGV[4])\n"
	"end\n"
	"redis.call('ZADD', '" REDIS_WORKERS "', string.format('%.0f', now), ARGV[1])\n"
	"redis.call('ZREMRANGEBYSCORE', '" REDIS_WORKERS "', '-inf', string.format('%.0f', now - ARGV[2]))\n"
	"redis.call('PEXPIRE', '" REDIS_WORKERS "', 60000)\n"
	"local scan = redis.call('SET', '" REDIS_SCAN "', ARGV[1], 'PX', ARGV[3], 'NX') and 1 or 0\n"
	"return {born, redis.call('ZCARD', '" REDIS_WORKERS "'), scan}\n";

/* ARGV ttl of an index in ms, then host and worker of each counter that was found. */
static const char note[] = "for i = 2, #ARGV, 2 do\n"
			   "  local index = '" REDIS_INDEX "' .. ARGV[i]\n"
			   "  redis.call('HSETNX', index, ARGV[i + 1], '0 0')\n"
			   "  redis.call('PEXPIRE', index, ARGV[1])\n"
			   "end\n"
			   "return {#ARGV}\n";

/* KEYS starts. ARGV member, threshold, window + guard in us, settle in us. Answers: 1 go, 0 wait, -1 settling; us to wait. A start in
   the future was noted before the clock went back: it counts as now. */
static const char start[] = NOW_AND_AGE
	"local starts, threshold, window, settle = KEYS[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])\n"
	"if age < settle then return {-1, settle - age} end\n"
	"local text = string.format('%.0f', now)\n"
	"local ahead = redis.call('ZRANGEBYSCORE', starts, '(' .. text, '+inf')\n"
	"for i = 1, #ahead do redis.call('ZADD', starts, text, ahead[i]) end\n"
	"redis.call('ZREMRANGEBYSCORE', starts, '-inf', string.format('%.0f', now - window))\n"
	"local count = redis.call('ZCARD', starts)\n"
	"if count < threshold then\n"
	"  redis.call('ZADD', starts, text, ARGV[1])\n"
	"  redis.call('PEXPIRE', starts, math.ceil(window / 1000) + 1000)\n"
	"  return {1, 0}\n"
	"end\n"
	"local oldest = redis.call('ZRANGE', starts, count - threshold, count - threshold, 'WITHSCORES')\n"
	"return {0, math.max(1, oldest[2] + window - now)}\n";

/* KEYS starts. ARGV member, "now" or "gone". */
static const char started[] = "if ARGV[2] == 'gone' then return {redis.call('ZREM', KEYS[1], ARGV[1])} end\n"
			      "local t = redis.call('TIME')\n"
			      "return {redis.call('ZADD', KEYS[1], 'XX', string.format('%.0f', t[1] * 1000000 + t[2]), ARGV[1])}\n";

const char *const redis_scripts[SCRIPT_COUNT] = { [SCRIPT_LETTER] = letter,
	                                          [SCRIPT_HEARTBEAT] = heartbeat,
	                                          [SCRIPT_NOTE] = note,
	                                          [SCRIPT_START] = start,
	                                          [SCRIPT_STARTED] = started };
