"""Raw bytes against weir, table by table: conformance/ holds the tables, and docs/conformance.md who else does what.

Each row says what a client sends, what it must see, what the target must have received, and who says so.
"""
import os
import socket
import threading

from conformance import page, play, tables
from conformance import answers, chunks, forward, framing, heads, hops, streams, targets
from harness import takes


@takes(60)
def a_request_ends_where_its_framing_says_or_is_refused(t):
    play.check(t, framing.ROWS)


@takes(60)
def chunks_are_read_strictly_and_framed_anew(t):
    play.check(t, chunks.ROWS)


@takes(60)
def a_head_has_one_meaning_or_is_refused(t):
    play.check(t, heads.ROWS)


@takes(60)
def a_target_has_a_known_form_and_passes_as_it_came(t):
    play.check(t, targets.ROWS)


@takes(60)
def what_is_between_two_neighbours_stays_there(t):
    play.check(t, hops.ROWS)


@takes(60)
def messages_on_one_connection_stay_apart(t):
    play.check(t, streams.ROWS)


@takes(60)
def a_bad_answer_never_looks_like_a_good_one(t):
    play.check(t, answers.ROWS)


@takes(60)
def a_forward_proxy_goes_where_the_target_says(t):
    play.check(t, forward.ROWS)


# The tables, the page, and the suite itself.

def there_are_hundreds_of_rows_and_each_says_why(t):
    t.equal(tables.faults(), [])
    count = sum(len(rows) for _, rows in tables.TABLES)
    t.check(count >= 300, f'{count} rows')


def the_page_has_all_rows_and_says_of_weir_what_they_say(t):
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', '..', 'docs', 'conformance.md')
    with open(path, encoding='utf-8') as file:
        written = file.read().splitlines()
    lines = [line for line in written if line.startswith('| ') and not line.startswith(('| row |', '| table |'))]
    begins = {'| ' + page.own_cells(row) + ' |' for _, rows in tables.TABLES for row in rows}
    told = {' |'.join(line.split(' |')[:2]) + ' |' for line in lines}
    t.equal(sorted(begins - told), [], 'rows that docs/conformance.md lacks: make conformance')
    t.equal(len(lines), sum(len(rows) + 1 for _, rows in tables.TABLES),
        'rows of the page, one of each sum: make conformance')


class _Pipe:
    """A proxy that understands nothing: each byte goes on as it came."""

    def __init__(self, t, lane):
        self.listener = socket.create_server(('127.0.0.1', 0))
        self.lane = lane
        lane.port = self.listener.getsockname()[1]
        t.cleanup(self.listener.close)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
                far = socket.create_connection(('127.0.0.1', self.lane.origin.port))
            except OSError:
                return
            for reader, writer in ((near, far), (far, near)):
                threading.Thread(target=self._copy, args=(reader, writer), daemon=True).start()

    @staticmethod
    def _copy(reader, writer):
        try:
            while data := reader.recv(65536):
                writer.sendall(data)
            writer.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def a_proxy_that_passes_everything_on_is_found_out(t):
    """The suite must be able to fail: what a careless proxy does with these rows is told of each."""
    lane = play.Lane(t)
    _Pipe(t, lane)
    names = ('CL.TE: the length first', 'two lengths, 0 and 40', 'Transfer-Encoding, a blank before the colon',
        'chunks in HTTP/1.0 with keep-alive',
             'extension: a=b', 'a bare LF everywhere', 'no Host', 'what Connection names is removed')
    rows = [row for _, all_rows in tables.TABLES for row in all_rows if row.name in names]
    t.equal(len(rows), len(names))
    for row in rows:
        t.check(play.complaints(row, lane, play.play(t, lane, row, 0.2)), f'{row.name}: nothing was wrong with it')
    good = [row for row in heads.ROWS if row.name == 'repeated fields keep their order']
    wrong = play.complaints(good[0], lane, play.play(t, lane, good[0], 0.2))
    t.check(not [line for line in wrong if 'Date' not in line], f'a good row: {wrong}')
