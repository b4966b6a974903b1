"""Raw bytes against weir, table by table: conformance/ holds the tables, and docs/conformance.md who else does what.

Each row says what a client sends, what it must see, what the target must have received, and who says so.
"""
from conformance import answers, chunks, forward, framing, heads, hops, play, streams, targets


def a_request_ends_where_its_framing_says_or_is_refused(t):
    play.check(t, framing.ROWS)


def chunks_are_read_strictly_and_framed_anew(t):
    play.check(t, chunks.ROWS)


def a_head_has_one_meaning_or_is_refused(t):
    play.check(t, heads.ROWS)


def a_target_has_a_known_form_and_passes_as_it_came(t):
    play.check(t, targets.ROWS)


def what_is_between_two_neighbours_stays_there(t):
    play.check(t, hops.ROWS)


def messages_on_one_connection_stay_apart(t):
    play.check(t, streams.ROWS)


def a_bad_answer_never_looks_like_a_good_one(t):
    play.check(t, answers.ROWS)


def a_forward_proxy_goes_where_the_target_says(t):
    play.check(t, forward.ROWS)
