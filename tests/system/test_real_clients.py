"""curl, wget and Node as clients, nginx and Python's http.server as targets, weir's own demonstration programs as
both."""
import hashlib
import http.client
import json
import os
import socket
import sys
import threading
import urllib.request

from harness import takes
from origin import answer

MIB = 1024 * 1024


def _nginx(t, files):
    """nginx that serves the folder files and keeps uploads (PUT); its port."""
    nginx = t.tool('nginx')
    port = t.free_port()
    folder = os.path.join(t.tmp, 'nginx')
    os.makedirs(folder)
    os.chmod(t.tmp, 0o755)
    os.chmod(os.path.dirname(t.tmp), 0o755)
    user = 'user root;' if os.getuid() == 0 else ''
    config = t.file('nginx.conf', f'''{user} daemon off; pid {folder}/pid; error_log {folder}/error.log;
worker_processes 1;
events {{ worker_connections 1024; }}
http {{
    access_log {folder}/access.log; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    client_max_body_size 0; gzip on; gzip_types text/plain; gzip_min_length 1;
    server {{ listen 127.0.0.1:{port}; root {files}; dav_methods PUT; create_full_put_path on; }}
}}
''')
    t.start_tool(nginx, '-c', config, '-p', folder, '-e', folder + '/error.log')
    t.until(lambda: _accepts(port), 10, 'nginx listens')
    return port


def _accepts(port):
    try:
        socket.create_connection(('127.0.0.1', port), 1).close()
        return True
    except OSError:
        return False


def _folder(t, size=0):
    """A folder with a small and (perhaps) a big file; its path and the big one's digest."""
    folder = os.path.join(t.tmp, 'files')
    os.makedirs(folder)
    with open(folder + '/hello.txt', 'wb') as file:
        file.write(b'Hello, world!\n' * 100)
    digest = ''
    if size:
        data = os.urandom(size)
        digest = hashlib.sha256(data).hexdigest()
        with open(folder + '/big.bin', 'wb') as file:
            file.write(data)
    return folder, digest


def _digest(path):
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


@takes(60)
def curl_downloads_and_uploads_big_files_through_nginx_unchanged(t):
    curl = t.tool('curl')
    folder, digest = _folder(t, 40 * MIB)
    weir = t.weir(f'127.0.0.1:{_nginx(t, folder)}')
    url = f'http://127.0.0.1:{weir.port}'
    out = t.tmp + '/down.bin'
    result = t.run_tool(curl, '-sS', '-o', out, '-w', '%{http_code} %{size_download}', url + '/big.bin', seconds=40)
    t.equal(result.out, b'200 %d' % (40 * MIB), str(result))
    t.equal(_digest(out), digest, 'down')
    for name, more in (('length', []), ('chunked', ['-H', 'Transfer-Encoding: chunked']),
                       ('expect', ['-H', 'Expect: 100-continue'])):
        result = t.run_tool(curl, '-sS', '-o', '/dev/null', '-w', '%{http_code}', '-T', out, *more,
                            f'{url}/up-{name}.bin', seconds=40)
        t.equal(result.out, b'201', f'{name}: {result}')
        t.equal(_digest(f'{folder}/up-{name}.bin'), digest, f'up, {name}')


def curl_reuses_one_connection_for_many_requests(t):
    curl = t.tool('curl')
    folder, _ = _folder(t)
    weir = t.weir(f'127.0.0.1:{_nginx(t, folder)}')
    urls = [f'http://127.0.0.1:{weir.port}/hello.txt?{i}' for i in range(20)]
    result = t.run_tool(curl, '-sS', *sum((['-o', '/dev/null', url] for url in urls), []), '-w',
                        '%{http_code} %{num_connects}\n')
    lines = result.out.decode().split('\n')[:-1]
    t.equal(lines, ['200 1'] + ['200 0'] * 19, str(result))


def curl_head_range_and_conditional_requests_work_through_nginx(t):
    curl = t.tool('curl')
    folder, _ = _folder(t)
    weir = t.weir(f'127.0.0.1:{_nginx(t, folder)}')
    url = f'http://127.0.0.1:{weir.port}/hello.txt'
    head = t.run_tool(curl, '-sSI', url)
    t.check(b'Content-Length: 1400' in head.out and b'200 OK' in head.out, f'{head}')
    part = t.run_tool(curl, '-sS', '-r', '7-11', '-w', ' %{http_code}', url)
    t.equal(part.out, b'world 206')
    etag = next(line.split(b': ')[1] for line in head.out.split(b'\r\n') if line.lower().startswith(b'etag'))
    unchanged = t.run_tool(curl, '-sS', '-H', b'If-None-Match: '.decode() + etag.decode(), '-w', '%{http_code}', url)
    t.equal(unchanged.out, b'304')
    zipped = t.run_tool(curl, '-sS', '--compressed', url)
    t.equal(zipped.out, b'Hello, world!\n' * 100)
    old = t.run_tool(curl, '-sS', '-0', '-w', ' %{http_code} %{http_version}', url)
    t.check(old.out.startswith(b'Hello, world!') and b' 200 ' in old.out, f'{old.out[-20:]!r}')
    missing = t.run_tool(curl, '-sS', '-o', '/dev/null', '-w', '%{http_code}', url + '.not')
    t.equal(missing.out, b'404')


def curl_fails_when_an_answer_is_cut_short(t):
    curl = t.tool('curl')

    def handler(conn):
        if conn.request() is not None:
            conn.send(answer(b'5\r\nhello\r\n', length=False, fields=['Transfer-Encoding: chunked']))
    weir = t.weir(t.origin(handler=handler))
    result = t.run_tool(curl, '-sS', f'http://127.0.0.1:{weir.port}/')
    t.check(result.code in (18, 56), f'{result}')


def wget_downloads_a_tree_over_kept_connections(t):
    wget = t.tool('wget')
    folder, digest = _folder(t, 5 * MIB)
    with open(folder + '/index.html', 'w', encoding='ascii') as file:
        file.write('<a href="hello.txt">a</a> <a href="big.bin">b</a> <a href="sub/one.txt">c</a>')
    os.makedirs(folder + '/sub')
    with open(folder + '/sub/one.txt', 'w', encoding='ascii') as file:
        file.write('one')
    weir = t.weir(f'127.0.0.1:{_nginx(t, folder)}')
    result = t.run_tool(wget, '-q', '-r', '-nH', '-P', t.tmp + '/got', f'http://127.0.0.1:{weir.port}/index.html',
                        seconds=30)
    t.equal(result.code, 0, str(result))
    t.equal(_digest(t.tmp + '/got/big.bin'), digest)
    t.equal(_digest(t.tmp + '/got/sub/one.txt'), hashlib.sha256(b'one').hexdigest())


NODE = '''
const base = process.argv[1];
(async () => {
    const bodies = await Promise.all([...Array(30).keys()].map(i => fetch(base + '/get/' + i).then(r => r.text())));
    const big = 'x'.repeat(3000000);
    const echoed = await fetch(base + '/echo', { method: 'POST', body: big }).then(r => r.text());
    const stream = new ReadableStream({ start(c) {
        for (let i = 0; i < 50; i++) c.enqueue(new TextEncoder().encode('part ' + i + ';'));
        c.close();
    } });
    const streamed = await fetch(base + '/echo', { method: 'POST', body: stream, duplex: 'half' }).then(r => r.text());
    const head = await fetch(base + '/get/1', { method: 'HEAD' });
    const gone = await fetch(base + '/204');
    console.log(JSON.stringify({ bodies, echoed: echoed === big, streamed,
                                 head: [head.status, head.headers.get('content-length')],
                                 gone: gone.status, via: head.headers.get('via') }));
})().catch(e => { console.error(e); process.exit(1); });
'''


def node_fetch_gets_posts_and_streams(t):
    node = t.tool('node')

    def reply(req):
        if req.target == '/204':
            return answer(b'', 204, 'No Content', length=False)
        if req.method == 'HEAD':
            return answer(b'', fields=['Content-Length: 6'], length=False)
        return answer(req.body if req.target == '/echo' else req.target.encode())
    weir = t.weir(*[t.origin(reply) for _ in range(3)])
    result = t.run_tool(node, '-e', NODE, f'http://127.0.0.1:{weir.port}', seconds=25)
    if not t.equal(result.code, 0, str(result)):
        return
    told = json.loads(result.out)
    t.equal(told['bodies'], [f'/get/{i}' for i in range(30)])
    t.equal([told['echoed'], told['streamed'], told['head'], told['gone']],
            [True, ''.join(f'part {i};' for i in range(50)), [200, '6'], 204])


def pythons_http_server_is_served_through_weir(t):
    folder, digest = _folder(t, 3 * MIB)
    port = t.free_port()
    t.start_tool(sys.executable, '-m', 'http.server', port, '--bind', '127.0.0.1', '--directory', folder)
    t.until(lambda: _accepts(port), 10, 'http.server listens')
    weir = t.weir(f'127.0.0.1:{port}')
    for _ in range(3):
        with urllib.request.urlopen(f'http://127.0.0.1:{weir.port}/big.bin', timeout=t.s(20)) as response:
            t.equal(hashlib.sha256(response.read()).hexdigest(), digest)
    connection = http.client.HTTPConnection('127.0.0.1', weir.port, timeout=t.s(10))
    for _ in range(20):
        connection.request('GET', '/hello.txt')
        response = connection.getresponse()
        t.equal([response.status, len(response.read())], [200, 1400])
    connection.close()


# The demonstration programs

def _server_demo(t, name, delay_ms=0):
    port = t.free_port()
    _start_demo(t, port, name, delay_ms)
    return f'127.0.0.1:{port}'


def _start_demo(t, port, name, delay_ms=0):
    process = t.start_tool(os.path.join(t.bin, 'server_demo'), '--http', port, '--name', name, '--delay', delay_ms)
    t.until(lambda: _accepts(port), 10, f'server_demo {name} listens')
    return process


def server_demo_says_hello_and_answers_pings(t):
    weir = t.weir(_server_demo(t, 'target1'))
    response = t.get(weir)
    t.equal(response.status, 200)
    t.check(b'Hello, world!' in response.body, f'{response}')
    t.equal(t.get(weir, '/ping/').status, 200)


@takes(60)
def a_demo_server_killed_and_started_again_under_load_is_never_seen(t):
    steady, port = [_server_demo(t, name) for name in ('target1', 'target2')], t.free_port()
    victim = _start_demo(t, port, 'target3')
    weir = t.weir(*steady, f'127.0.0.1:{port}', probe_interval=0.2)
    bad, done, by_victim = [], [0], [0]
    stop = threading.Event()

    def load():
        connection = http.client.HTTPConnection('127.0.0.1', weir.port, timeout=t.s(20))
        while not stop.is_set():
            connection.request('GET', '/')
            response = connection.getresponse()
            body = response.read()
            done[0] += 1
            by_victim[0] += response.getheader('X-Target') == 'target3'
            if response.status != 200 or b'Hello, world!' not in body:
                bad.append((response.status, body[:50]))

    def drama():
        try:
            t.until(lambda: by_victim[0] > 50, 20, 'answers of target3')
            victim.kill()
            victim.wait()
            goal = done[0] + 500
            t.until(lambda: done[0] > goal, 20, 'load')
            _start_demo(t, port, 'target3')
            goal = by_victim[0] + 50
            t.until(lambda: by_victim[0] > goal, 20, 'answers of target3')
        finally:
            stop.set()
    t.parallel([drama] + [load] * 6, seconds=50)
    t.equal(bad, [])


def client_demo_counts_what_it_got_from_five_targets(t):
    weir = t.weir(*[_server_demo(t, f'target{i}') for i in range(1, 6)])
    result = t.run('--url', f'http://127.0.0.1:{weir.port}/', '--count', '50', '--interval', '0', program='client_demo',
                   seconds=20)
    t.equal(result.code, 0, str(result))
    text = result.out.decode()
    t.check('200' in text, f'{text}')
    for i in range(1, 6):
        t.check(f'target{i}' in text, f'target{i} is not in {text}')
