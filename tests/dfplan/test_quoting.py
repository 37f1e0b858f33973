import pytest

from dfplan.quoting import printable, shortened


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("maze2d-große", "maze2d-große"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("two\nlines\r", "two\\nlines\\r"),
        ("\u202eright to left", "\\u202eright to left"),
        ("\ud800", "\\ud800"),
        ("\x9b31m", "\\x9b31m"),
    ],
)
def test_what_a_terminal_would_obey_is_shown_instead(text, shown):
    assert printable(text) == shown


def test_line_breaks_of_a_cell_are_kept_where_asked_for():
    assert printable("a\nb\x1b\r", keep="\n") == "a\nb\\x1b\\r"


def test_too_much_is_left_out_of_the_middle():
    assert shortened("short", 10) == "short"
    for limit in (20, 21):
        text = shortened("begin" + "x" * 100 + "end", limit)
        assert len(text) == limit and text.startswith("begin") and text.endswith("end")
