"""Forms: what values from outside must look like, declared once as a class, and all that is wrong with them at once.

A field's type, with msgspec's ``Meta`` for bounds and a description, is its declaration; msgspec judges each value.
The same forms as classes of pydantic take nearly four times the memory: docs/benchmarks.md.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import msgspec

# msgspec's messages: "Expected `str`, got `int`", and behind it the part of the value that it is about.
_MESSAGE = re.compile(r"(?P<expected>.*?)(?:, got (?P<found>`[^`]*`))?(?: - at (?:`key` in )?`\$[^`]*`)?", re.DOTALL)
# That are told of one form.
MOST_FAULTS = 100


@dataclass(frozen=True, slots=True)
class First:
    """In a field's annotation: ``make`` gets the value as it came, and gives what is then held against the type.

    Raises ValueError with the text that the user is to read.
    """

    make: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Then:
    """In a field's annotation: ``make`` gets the value once its type is right, and gives the field's. Raises
    ValueError, as ``First`` does."""

    make: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong. ``where``: the keys and indices that lead to it; ``given``: what stands there.

    ``found`` is the kind of value that stands there, where that is what is wrong; ``unknown_in`` the form that has no
    such key, where that is.
    """

    where: tuple[str, ...]
    expected: str
    given: object
    found: str = ""
    unknown_in: type[Form] | None = None

    @property
    def key(self) -> str:
        """``where`` as users write it: "section.key"."""
        return ".".join(self.where)

    @property
    def what(self) -> str:
        """All that can be said without the value itself."""
        return f"{self.expected}, got {self.found}" if self.found else self.expected


def whole(pattern: str, title: str) -> msgspec.Meta:
    """In a text's annotation: all of it has this pattern, which ``title`` says in words."""
    # msgspec searches, and to Python's $ a newline may follow. This means the same in JSON Schema's dialect.
    return msgspec.Meta(pattern=rf"^{pattern}(?!\n)$", title=title)


class BadForm(ValueError):
    """Values that do not have a form. ``faults``: one or more, in the order of the values."""

    def __init__(self, faults: list[Fault]) -> None:
        if len(faults) > MOST_FAULTS:
            faults = [*faults[:MOST_FAULTS], Fault((), f"and {len(faults) - MOST_FAULTS} more that is wrong", None)]
        super().__init__("; ".join(f"{fault.key}: {fault.what}" if fault.where else fault.what for fault in faults))
        self.faults = tuple(faults)


class Form(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of all forms. What the program itself makes by ``Form(field=...)`` is not checked.

    A form whose fields depend on each other looks at them in ``__post_init__``, and raises ValueError.
    """

    @classmethod
    def read(cls, values: object, *, texts: bool = False) -> Self:
        """The form that holds these values: mappings, sequences, texts, numbers. Raises BadForm.

        ``texts``: numbers and booleans may be written as texts.
        """
        faults: list[Fault] = []
        made = _form(values, cls, (), faults, not texts)
        if faults:
            raise BadForm(faults)
        return typing.cast(Self, made)


@dataclass(frozen=True, slots=True)
class Field:
    """A field as documentation shows it. ``bounds``: the lowest and the highest number; ``choices``: all texts."""

    name: str
    annotation: Any
    required: bool
    default: Any
    description: str
    bounds: tuple[float, float] | None
    choices: tuple[str, ...]


def fields_of(form: type[Form]) -> Mapping[str, Field]:
    """All fields by name, in the order of their declaration."""
    return {field.name: _field(field) for field in msgspec.structs.fields(form)}


def form_of(annotation: Any) -> type[Form] | None:
    """The form that values of this type have themselves, if they have one."""
    bare = _bare(annotation)
    return bare if isinstance(bare, type) and issubclass(bare, Form) else None


def _field(field: msgspec.structs.FieldInfo) -> Field:
    metas = [part for part in _beside(field.type) if isinstance(part, msgspec.Meta)]
    return Field(
        name=field.name,
        annotation=field.type,
        required=field.required,
        default=field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory(),
        description=next((meta.description for meta in metas if meta.description), ""),
        bounds=next(((meta.ge, meta.le) for meta in metas if meta.ge is not None and meta.le is not None), None),
        choices=_choices(field.type),
    )


def _form(values: object, form: type[Form], where: tuple[str, ...], faults: list[Fault], strict: bool) -> Form | None:
    """The form; None when there is a fault."""
    if not isinstance(values, Mapping):
        faults.append(Fault(where, "Expected keys with values", values))
        return None
    fields = {field.name: field for field in msgspec.structs.fields(form)}
    before, made = len(faults), {}
    for key, value in values.items():
        if key in fields:
            made[key] = _value(value, fields[key].type, (*where, str(key)), faults, strict)
        else:
            faults.append(Fault((*where, str(key)), "unknown key", value, unknown_in=form))
    missing = [name for name, field in fields.items() if field.required and name not in values]
    faults += [Fault((*where, name), "is missing", None) for name in missing]
    if len(faults) > before:
        return None
    try:
        return form(**made)
    except ValueError as error:
        faults.append(Fault(where, str(error), values))
        return None


def _value(value: Any, annotation: Any, where: tuple[str, ...], faults: list[Fault], strict: bool) -> Any:
    """The value as a field has it; None when there is a fault."""
    before = len(faults)
    try:
        for hook in _beside(annotation):
            if isinstance(hook, First):
                value = hook.make(value)
        if form := form_of(annotation):
            return _form(value, form, where, faults, strict)
        value = _elements(value, annotation, where, faults, strict)
        if len(faults) > before:
            return None
        made = msgspec.convert(value, annotation, strict=strict)
        for hook in _beside(annotation):
            if isinstance(hook, Then):
                made = hook.make(made)
        return made
    except msgspec.ValidationError as error:
        faults.append(_refused(str(error), value, annotation, where))
    except ValueError as error:
        faults.append(Fault(where, str(error), value))
    return None


def _elements(value: Any, annotation: Any, where: tuple[str, ...], faults: list[Fault], strict: bool) -> Any:
    """A value that holds others, with each of them looked at by itself: msgspec would stop at the first fault."""
    bare = _bare(annotation)
    holder, parts = typing.get_origin(bare), typing.get_args(bare)
    if holder is dict and isinstance(value, Mapping):
        name_type, value_type = parts
        return {
            _value(name, name_type, (*where, str(name)), faults, strict):
            _value(inner, value_type, (*where, str(name)), faults, strict)
            for name, inner in value.items()
        }  # fmt: skip
    if holder is tuple and isinstance(value, (list, tuple)):
        return [_value(item, parts[0], (*where, str(index)), faults, strict) for index, item in enumerate(value)]
    return value


def _refused(message: str, value: Any, annotation: Any, where: tuple[str, ...]) -> Fault:
    """msgspec's message as a fault, in the words of the annotation where it has some."""
    said = _MESSAGE.fullmatch(message)
    expected, found = (said["expected"], said["found"] or "") if said else (message, "")
    titles = [part.title for part in _parts(annotation) if isinstance(part, msgspec.Meta) and part.title]
    if expected.startswith("Invalid enum value"):
        expected = f"Expected one of {', '.join(_choices(annotation))}"
    elif "matching regex" in expected and titles:
        expected = f"Expected {titles[0]}"
    return Fault(where, expected, value, found)


def _beside(annotation: Any) -> tuple[Any, ...]:
    """What an annotation says besides the type."""
    return getattr(annotation, "__metadata__", ())


def _bare(annotation: Any) -> Any:
    return annotation.__origin__ if typing.get_origin(annotation) is typing.Annotated else annotation


def _choices(annotation: Any) -> tuple[str, ...]:
    literals = [part for part in _parts(annotation) if typing.get_origin(part) is typing.Literal]
    return tuple(choice for literal in literals for choice in typing.get_args(literal) if isinstance(choice, str))


def _parts(annotation: Any) -> Iterator[Any]:
    """An annotation, and all that it is made of."""
    yield annotation
    for part in typing.get_args(annotation):
        yield from _parts(part)
