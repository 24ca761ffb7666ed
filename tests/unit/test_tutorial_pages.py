"""The pages of the tutorials are read as they are meant, and nothing on them goes by unnoticed."""

from pathlib import Path

import pytest

from tests.support.tutorial_pages import PAGES, missing_line, steps_of

PAGE = """\
Title
=====

Text with a block::

    first \\
        goes on
    second

.. note:: not for a terminal

   Said::

.. test: in terminal b
.. test: needs tool
.. test: exit code 0 or 3

::

    third

.. test: file a.toml
.. test: output
.. code:: toml

    [a]

      b = 1

.. test: Ctrl-C
.. test: again, until it shows x
.. test: left out: no cluster

In words::

    fourth
"""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_of_a_tutorial_is_something_that_is_done(page: Path) -> None:
    steps = steps_of(page.read_text())
    assert sum(len(step.commands()) for step in steps if not (step.is_output or step.file or step.left_out)) > 5
    assert {step.left_out for step in steps} <= {
        "", "needs a container engine", "needs a cluster",
        "scripts/release-check installs the package into an empty environment"}
    # What is done stands in an order that can be done: nothing is expected of a terminal before it has a command.
    assert not steps[0].is_output


def test_comments_say_what_becomes_of_a_block() -> None:
    first, third, file, key, fourth = steps_of(PAGE)
    assert first.commands() == ["first \\\n    goes on", "second"] and first.terminal == "1"
    assert (third.terminal, third.needs, third.exit_codes) == ("b", ("tool",), (0, 3))
    assert (file.file, file.is_output, file.lines) == ("a.toml", True, ["[a]", "", "  b = 1"])
    assert (key.key, key.terminal) == ("Ctrl-C", "b")
    assert (fourth.again_until, fourth.left_out) == ("x", "no cluster")


@pytest.mark.parametrize(("page", "words"), [
    (".. test: outptu\n\n::\n\n    a\n", "not understood: outptu"),
    (".. code:: toml\n\n    a = 1\n", "no comment says"),
    (".. test: output\n\nNo block.\n", "no block follows"),
])
def test_a_comment_that_says_nothing_is_a_mistake(page: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        steps_of(page)


@pytest.mark.parametrize(("expected", "shown", "missing"), [
    (["a", "b"], "x\na\n b \n", None), (["b", "a"], "a\nb\n", "a"), (["a"], "ab", "a"), (["a..."], "ab", None),
    (["1 ... 2", ""], "0\n1 and 2\n", None), (["(a)"], "a", "(a)")])
def test_lines_have_to_be_shown_in_their_order(expected: list[str], shown: str, missing: str | None) -> None:
    assert missing_line(expected, shown) == missing
