"""All tables, and what the short names of the sources stand for."""
import re

from . import answers, chunks, forward, framing, heads, hops, streams, targets

TABLES = (
    ('Where a request ends: Content-Length and Transfer-Encoding', framing.ROWS),
    ('Chunked bodies', chunks.ROWS),
    ('Heads: request lines, fields, Host, lengths', heads.ROWS),
    ('Request targets', targets.ROWS),
    ('What must not go on: Connection, Expect, Max-Forwards, Upgrade', hops.ROWS),
    ('Several messages on one connection', streams.ROWS),
    ('Wrong answers of targets', answers.ROWS),
    ('A forward proxy', forward.ROWS),
)

SOURCES = {
    'Watchfire 2005': 'C. Linhart, A. Klein, R. Heled, S. Orrin, "HTTP Request Smuggling", Watchfire, 2005',
    'Klein 2004': 'A. Klein, "Divide and Conquer: HTTP Response Splitting, Web Cache Poisoning Attacks, and Related '
                  'Topics", Sanctum, 2004',
    'Klein 2020': 'A. Klein, "HTTP Request Smuggling in 2020", Black Hat USA, 2020',
    'Kettle 2019': 'J. Kettle, "HTTP Desync Attacks: Request Smuggling Reborn", PortSwigger, 2019',
    'Kettle 2022': 'J. Kettle, "Browser-Powered Desync Attacks", PortSwigger, 2022',
    'Kettle 2025': 'J. Kettle, "HTTP/1.1 Must Die: the Desync Endgame", PortSwigger, 2025',
    'Chen 2016': 'J. Chen, J. Jiang, H. Duan, N. Weaver, T. Wan, V. Paxson, "Host of Troubles: Multiple Host '
                 'Ambiguities in HTTP Implementations", ACM CCS, 2016',
    'Davison 2019': 'N. Davison, "Abusing HTTP hop-by-hop request headers", 2019',
    'Egorov 2019': 'M. Egorov, "What\'s wrong with WebSocket APIs", 2019',
    'Miller 2020': 'J. Miller, "h2c Smuggling: Request Smuggling via HTTP/2 Cleartext", Bishop Fox, 2020',
    'T-Reqs 2021': 'B. Jabiyev, S. Sprecher, K. Onarlioglu, E. Kirda, "T-Reqs: HTTP Request Smuggling with '
                   'Differential Fuzzing", ACM CCS, 2021',
    'Garden 2024': 'B. Kallus, P. Anantharaman, M. Locasto, S. Smith, "The HTTP Garden: Discovering Parsing '
                   'Vulnerabilities in HTTP/1.1 Implementations by Differential Fuzzing of Request Streams", 2024',
    'Weikop 2025': 'J. Bonde Weikop, "Funky chunks: abusing ambiguous chunk line terminators for request smuggling", '
                   '2025',
}

_RFC = re.compile(r'RFC \d{4}( §[\dC.]+(, §[\d.C]+)*)?')
_CVE = re.compile(r'CVE-\d{4}-\d{4,6}')


def faults():
    """What is wrong with the tables themselves, as sentences: none."""
    found, names = [], set()
    for title, rows in TABLES:
        for row in rows:
            key = (title, row.name)
            if key in names:
                found.append(f'{title}: two rows are called {row.name}')
            names.add(key)
            for source in row.source.split('; '):
                if not (_RFC.fullmatch(source) or _CVE.fullmatch(source) or source in SOURCES):
                    found.append(f'{title}: {row.name}: what is {source!r}?')
            if not row.sees or row.end not in ('open', 'closed', 'reset', 'cut'):
                found.append(f'{title}: {row.name}: ends {row.sees!r}')
    used = {source for _, rows in TABLES for row in rows for source in row.source.split('; ')}
    found += [f'nobody cites {name}' for name in SOURCES if name not in used]
    return found
