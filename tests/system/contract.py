"""The names by which weir is known from outside, in one place.

Tests speak of what weir does; how a log line, a flag or a JSON key is spelt stands here alone. When a name changes,
or a setting is added, this is the only file to touch.
"""
import re

# The line on stderr that says a service listens: "... info reverse listens on [::]:8000 port=8000".
LISTENS = re.compile(r'listens on (?P<address>\S+).*\bport=(?P<port>\d+)')

# What the log says when a SIGHUP has done its work, and when a SIGTERM has begun to.
RELOADED = r'settings (are|stay) in force'
DRAINING = r'SIGTERM'

ALL_OUT_BODY = b'All servers is off'

# What a sanitizer writes when it has found something.
SANITIZER = re.compile(r'ERROR: AddressSanitizer|ERROR: LeakSanitizer|WARNING: ThreadSanitizer|runtime error:'
                       r'|SUMMARY: \w*Sanitizer|stack smashing detected|double free|corrupted size')

# Text access line: the combined format, then key=value fields.
ACCESS_TEXT = re.compile(
    r'(?P<client>\S+) (?P<ident>\S+) (?P<user>\S+) \[(?P<time>[^\]]+)\] '
    r'"(?P<method>\S+) (?P<uri>\S+) (?P<protocol>[^" ]+)" (?P<status>\d{3}) (?P<bytes_out>\d+|-) '
    r'"(?P<referer>(?:[^"\\]|\\.)*)" "(?P<user_agent>(?:[^"\\]|\\.)*)" '
    r'service=(?P<service>\S+) target=(?P<target>\S+) tries=(?P<tries>\d+) wait=(?P<wait>[\d.]+) '
    r'upstream=(?P<upstream>[\d.]+) total=(?P<total>[\d.]+) bytes_in=(?P<bytes_in>\d+) outcome="(?P<outcome>[^"]*)"')

ACCESS_JSON_KEYS = ('time', 'service', 'client', 'method', 'uri', 'protocol', 'status', 'bytes_out', 'bytes_in',
                    'referer',
                    'user_agent', 'target', 'tries', 'wait_us', 'upstream_us', 'total_us', 'outcome')
ACCESS_JSON_NUMBERS = ('status', 'bytes_out', 'bytes_in', 'tries', 'wait_us', 'upstream_us', 'total_us')
OUTCOME_OK = 'ok'

# Settings of a service, each with a value that is not its default.
SETTINGS = {
    'balance': 'leastconn', 'hash_key': 'uri', 'probe_interval': '2', 'probe_path': '/health', 'probe_rise': '2',
    'probe_fall': '3', 'threshold': '7', 'backlog': '3', 'retries': '1', 'max_clients': '50', 'max_header': '16384',
    'max_body': '1000', 'forwarded': 'off', 'connect_timeout': '2', 'header_timeout': '0.5', 'response_timeout': '7',
    'idle_timeout': '8', 'tunnel_timeout': '9', 'drain_timeout': '4', 'unavailable_status': '503',
    'reject_status': '503', 'burst': '3', 'queue': 'fair', 'ratelimit_headers': 'draft', 'client_rate': '5',
    'client_burst': '9', 'client_connections': '20', 'client_key': 'header:X-Api-Key', 'client_block': '1.5',
    'exempt': '10.1.0.0/16, header:X-Plan="gold, silver"', 'allow': '127.0.0.0/8, ::1, unix', 'deny': '192.0.2.0/24',
    'trust_forwarded': '10.0.0.0/8, unix', 'max_connections': '25',
    'host_limits': 'example.com=3, example.com:8443=0, [::1]=7', 'cap_backlog': '1.5',
    'host_rate': '5', 'host_rates': 'example.com=600/m, [::1]:8080=0.5/s', 'host_backlog': '1.5', 'proxy_protocol': 'on', 'send_proxy': 'v2', 'parent': '[::1]:3128',
    'connect_allow': '*:443, *.example.com:80, 10.0.0.0/8:*, [::1]:8080', 'redis_addr': '127.0.0.1:6379',
    'redis_db': '3', 'redis_fail': 'local', 'stats_path': '/stats', 'id': '7', 'unicast': '127.0.0.255:7788', 'partition': 'strict',
    'ssl': 'yes', 'ssl_name': 'api.example',
}

# Where the status page and the API are, in the log.
ADMIN = re.compile(r'the API are at (http://(?P<host>\S+):(?P<port>\d+)/|unix:(?P<path>\S+))')

# Environment variables that weir listens to (and a service manager's, which those who run the tests may have); the harness clears them so that a test starts from nothing.
ENVIRONMENT = re.compile(r'^(WEIR_|DPRL_|REDIS_|(LOG_LEVEL|NOTIFY_SOCKET)$)')
