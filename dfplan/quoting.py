"""Text from elsewhere (names in files, cards, paths) made fit to be printed: one line, no control characters, not too long."""


def printable(text: str) -> str:
    """The text with every character that a terminal would obey or not show written as an escape, such as `\\x1b`."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def shortened(text: str, limit: int) -> str:
    """At most `limit` characters of the text: what is too much is left out of its middle."""
    if len(text) <= limit:
        return text
    left = (limit - 5) // 2
    return f"{text[: limit - 5 - left]} ... {text[-left:]}"
