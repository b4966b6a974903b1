-- report.lua: what wrk measured, as one line that a program can read. Times in microseconds.
function done(summary, latency, requests)
	io.write(string.format(
		'RESULT {"requests": %d, "duration_us": %d, "bytes": %d, "p50_us": %d, "p90_us": %d, "p99_us": %d, "max_us": %d, ' ..
		'"errors": {"connect": %d, "read": %d, "write": %d, "timeout": %d, "status": %d}}\n',
		summary.requests, summary.duration, summary.bytes,
		latency:percentile(50), latency:percentile(90), latency:percentile(99), latency.max,
		summary.errors.connect, summary.errors.read, summary.errors.write, summary.errors.timeout, summary.errors.status))
end
