"""Forms: what is right is taken, and all that is wrong is told at once, each with its place."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, field, to_builtins

from slabwatch.form import BadForm, First, Form, Then, fields_of, form_of


def _even(value: int) -> int:
    if value % 2:
        raise ValueError("must be even")
    return value


def _stripped(value: object) -> object:
    return value.strip() if isinstance(value, str) else value


class Leaf(Form, frozen=True):
    """A leaf."""

    size: Annotated[int, Meta(ge=0, le=10, description="How large."), Then(_even)] = 4
    colour: Literal["red", "green"] | None = None


class Tree(Form, frozen=True):
    name: Annotated[str, First(_stripped), Meta(min_length=1)]
    ratio: Annotated[float, Meta(ge=0, le=1)] = 0.5
    words: tuple[Annotated[str, Meta(max_length=3)], ...] = ()
    leaf: Leaf = Leaf()
    leaves: dict[Annotated[str, Meta(pattern=r"^[a-z]+\Z", title="small letters")], Leaf] = field(default_factory=dict)
    wide: int = 1
    narrow: int = 0

    def __post_init__(self) -> None:
        if self.narrow > self.wide:
            raise ValueError("narrow is above wide")


def faults(values: object, form: type[Form] = Tree, **how: bool) -> list[tuple[str, str]]:
    with pytest.raises(BadForm) as caught:
        form.read(values, **how)
    return [(fault.key, fault.what) for fault in caught.value.faults]


def test_what_is_right_is_taken_and_the_rest_is_the_default() -> None:
    made = Tree.read({"name": " oak ", "ratio": 1, "words": ["a", "b"], "leaf": {"size": 6}, "leaves": {"x": {}}})
    assert made == Tree(name="oak", ratio=1.0, words=("a", "b"), leaf=Leaf(size=6), leaves={"x": Leaf()})
    assert Tree.read({"name": "oak"}) == Tree(name="oak")


def test_all_that_is_wrong_is_told_at_once_in_the_order_of_the_values() -> None:
    values = {
        "words": ["abc", "abcd", 5],
        "leaf": {"size": 3, "colour": "blue", "smell": 1},
        "ratio": float("nan"),
        "leaves": {"x": {"size": 11}, "Y": {}, "z": 3},
        "root": {},
        "wide": True,
    }
    assert faults(values) == [
        ("words.1", "Expected `str` of length <= 3"),
        ("words.2", "Expected `str`, got `int`"),
        ("leaf.size", "must be even"),
        ("leaf.colour", "Expected one of red, green"),
        ("leaf.smell", "unknown key"),
        ("ratio", "Expected `float` >= 0.0"),
        ("leaves.x.size", "Expected `int` <= 10"),
        ("leaves.Y", "Expected small letters"),
        ("leaves.z", "Expected keys with values"),
        ("root", "unknown key"),
        ("wide", "Expected `int`, got `bool`"),
        ("name", "is missing"),
    ]


def test_fields_that_do_not_go_together_are_looked_at_once_each_is_right() -> None:
    assert faults({"name": "oak", "narrow": 2}) == [("", "narrow is above wide")]
    assert faults({"name": "oak", "words": "abc"}) == [("words", "Expected `array`, got `str`")]
    assert faults({"name": "oak", "narrow": 2, "ratio": 2}) == [("ratio", "Expected `float` <= 1.0")]


@pytest.mark.parametrize("values", [None, [], "name", 3])
def test_what_has_no_keys(values: object) -> None:
    assert faults(values) == [("", "Expected keys with values")]


def test_numbers_as_texts_only_where_they_are_asked_for() -> None:
    values = {"name": "oak", "ratio": "0.25", "wide": "7"}
    assert faults(values) == [("ratio", "Expected `float`, got `str`"), ("wide", "Expected `int`, got `str`")]
    assert Tree.read(values, texts=True) == Tree(name="oak", ratio=0.25, wide=7)
    assert faults(values | {"wide": "seven"}, texts=True) == [("wide", "Expected `int`, got `str`")]


def test_a_fault_tells_what_stands_there_and_which_keys_there_are() -> None:
    with pytest.raises(
        BadForm, match="^words.0: Expected `str`, got `int`; leaf.x: unknown key; name: is missing$"
    ) as caught:
        Tree.read({"words": [5], "leaf": {"x": 1}})
    first, second, _ = caught.value.faults
    assert (first.given, first.expected, first.unknown_in) == (5, "Expected `str`", None)
    assert (second.given, second.unknown_in) == (1, Leaf)


def test_what_documentation_shows() -> None:
    shown = fields_of(Leaf)
    assert list(shown) == ["size", "colour"]
    assert (shown["size"].description, shown["size"].bounds, shown["size"].default) == ("How large.", (0, 10), 4)
    assert (shown["colour"].choices, shown["colour"].bounds) == (("red", "green"), None)
    tree = fields_of(Tree)
    assert [field.name for field in tree.values() if field.required] == ["name"]
    assert (form_of(tree["leaf"].annotation), form_of(tree["leaves"].annotation)) == (Leaf, None)
    assert tree["leaves"].default == {}


def test_a_flood_of_faults_is_counted_and_not_told() -> None:
    told = faults({"name": "oak", "words": [1] * 5000})
    assert len(told) == 101
    assert told[99:] == [("words.99", "Expected `str`, got `int`"), ("", "and 4900 more that is wrong")]


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*fields_of(Tree), *fields_of(Leaf), "a", "B"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(values=ANY, texts=st.booleans())
def test_any_values_are_a_form_or_the_one_error(values: Any, texts: bool) -> None:
    try:
        made = Tree.read(values, texts=texts)
    except BadForm as error:
        assert error.faults
    else:
        assert Tree.read(to_builtins(made)) == made
