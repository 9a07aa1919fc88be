"""How far long work is."""

from __future__ import annotations

from metarl.core.progress import listened, listening, part, tell


def test_nobody_listens_unless_asked():
    assert not listened()
    tell("something", 0.5)
    with part("a", 0, 2):
        assert not listened()


def test_parts_of_parts_share_the_whole():
    told: list[tuple[str, float]] = []
    with listening(lambda what, share: told.append((what, round(share, 3)))):
        assert listened()
        for number, name in enumerate(("first", "second")):
            with part(name, number, 2):
                for half in range(2):
                    with part("", half, 2):
                        tell("steps", 0.5)
        tell("end", 1.0)
    assert not listened()
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert told[-1] == ("end", 1.0)
    assert [pair for pair in told if pair[1] in (0.125, 0.375, 0.625, 0.875)] == [
        ("first", 0.125),
        ("first", 0.375),
        ("second", 0.625),
        ("second", 0.875),
    ]
