"""Text from a file or a process, made fit for a terminal: an escape sequence in a name must not steer it."""

STAND_IN = "\N{REPLACEMENT CHARACTER}"


def printable(text: str) -> str:
    """``text`` with every character that is no sign (ESC, bidi marks, lone surrogates) replaced; line breaks stay."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter == "\n" else STAND_IN for letter in text)
