"""Text from elsewhere (names in files, cards, paths) made fit to be printed: no control characters, and not too long."""


def printable(text: str, keep: str = "") -> str:
    """The text with every character that a terminal would obey or not show written as an escape, such as `\\x1b`.

    Characters of `keep` stay as they are, such as the line breaks within a cell of a table.
    """
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in text)


def shortened(text: str, limit: int) -> str:
    """At most `limit` characters of the text: what is too much is left out of its middle."""
    if len(text) <= limit:
        return text
    left = (limit - 5) // 2
    return f"{text[: limit - 5 - left]} ... {text[-left:]}"
