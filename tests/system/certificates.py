"""Certificates for one test, made with openssl: an authority, and what it signs.

    ca = Authority(t)
    api = ca.issue('api.example', 'DNS:api.example')
    origin = t.origin(tls=api.server())
    weir = t.weir(f'127.0.0.1:{origin.port}', ssl='yes', cafile=ca.crt, ssl_name='api.example')
"""
import os
import ssl


class Pair:
    """A key and its certificate: paths, and contexts made of them."""

    def __init__(self, key, crt):
        self.key, self.crt = key, crt

    def server(self, version=None, client_ca=None, alpn=('http/1.1',)):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.crt, self.key)
        return _tuned(context, version, client_ca, alpn)


def _tuned(context, version, client_ca=None, alpn=()):
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF    # set by some Pythons: an end without close_notify is to be told from one with it
    if version:
        context.minimum_version = context.maximum_version = version
    if client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client_ca)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


class Authority:
    def __init__(self, case, name='Test Authority'):
        self.case, self.openssl = case, case.tool('openssl')
        self.folder = os.path.join(case.tmp, name.replace(' ', '-'))
        os.makedirs(self.folder, exist_ok=True)
        self.key, self.crt = self._path('ca.key'), self._path('ca.crt')
        self.issued = 0
        self._run('req', '-x509', *self._new_key(self.key), '-subj', f'/CN={name}', '-days', '10', '-out', self.crt)

    def _path(self, name):
        return os.path.join(self.folder, name)

    def _run(self, *arguments):
        done = self.case.run_tool(self.openssl, *arguments)
        assert done.code == 0, f'openssl {arguments}: {done}'

    @staticmethod
    def _new_key(path):
        return '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', path

    def issue(self, name, alternatives=None, days=10, file=None):
        """alternatives as subjectAltName spells them; days -1: it has expired."""
        self.issued += 1
        stem = self._path(file or f'{self.issued}-{name}')
        extensions = stem + '.ext'
        with open(extensions, 'w', encoding='ascii') as out:
            out.write(f'subjectAltName = {alternatives}\n' if alternatives else 'basicConstraints = CA:FALSE\n')
        self._run('req', *self._new_key(stem + '.key'), '-subj', f'/CN={name}', '-out', stem + '.csr')
        self._run('x509', '-req', '-in', stem + '.csr', '-CA', self.crt, '-CAkey', self.key, '-set_serial',
                  str(self.issued), '-days', str(days), '-extfile', extensions, '-out', stem + '.crt')
        return Pair(stem + '.key', stem + '.crt')

    def client(self, pair=None, version=None, alpn=()):
        """A context that trusts this authority, and shows pair if asked."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(self.crt)
        if pair:
            context.load_cert_chain(pair.crt, pair.key)
        return _tuned(context, version, alpn=alpn)
