"""Several arrays with names, in a file or a dict: the names that people use, and what they say."""

import re
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from pyro_vae.data.source import PARTS, ReadOptions, Source, listed
from pyro_vae.data.understanding.arrays import source_of_arrays
from pyro_vae.data.understanding.missing_values import hide
from pyro_vae.errors import InputError

Role = Literal["examples", "labels", "names", "masks"]
PART_WORDS = {
    **dict.fromkeys(("train", "training", "tr"), "train"),
    **dict.fromkeys(("validation", "val", "valid", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "te"), "test"),
}
EXAMPLE_WORDS = (
    "x", "data", "image", "images", "img", "imgs", "pictures", "features", "inputs", "input",
    "examples", "samples", "set", "arr_0",
)  # fmt: skip
LABEL_WORDS = ("y", "label", "labels", "target", "targets", "class", "classes")
MASK_WORDS = ("missing", "observed")  # `mask` does not say which of the two it means
MASK_HINTS = ("mask", "missing", "observed")
NAME_WORDS = ("feature_names", "columns", "column_names", "var_names")


@dataclass
class Roles:
    """The names of the arrays in a file, by what they are.

    Attributes:
        examples: by the part that they are.
        labels: by the part that they belong to.
        masks: of arrays that say which values are missing, or observed, by the part.
        names: of the array with the names of the columns, if there is one.
        others: arrays that are not used.
    """

    examples: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    masks: dict[str, str] = field(default_factory=dict)
    names: str | None = None
    others: list[str] = field(default_factory=list)

    @property
    def used(self) -> set[str]:
        """The names of the arrays that are used."""
        named = {self.names} if self.names else set()
        return {*self.examples.values(), *self.labels.values(), *self.masks.values(), *named}


def source_of_named_arrays(
    arrays: dict[str, np.ndarray], options: ReadOptions, where: str
) -> Source:
    """Return the parts of a data set that comes as several arrays with names.

    Args:
        arrays: the arrays; see `find_roles` for their names.
        options: what the user says about the data; `labels` is the name of an array, or of a
            column.
        where: the name of the file, for messages.

    Raises:
        InputError: if the names or the arrays cannot be used.
    """
    own_labels = options.labels if options.labels in arrays else None
    single = len(arrays) == 1
    shapes = {array.shape for array in arrays.values()}
    if not single and len(shapes) == 1 and len(next(iter(shapes))) == 1:
        raise InputError(
            f"{where} holds columns ({listed(list(arrays))}): join them into one table, as a "
            "DataFrame or a .csv file",
            "name",
        )
    roles = find_roles(list(arrays), where, None if single else own_labels)
    if options.labels and own_labels is None and arrays[roles.examples["train"]].ndim != 2:
        raise InputError(
            f"{where} has no array {options.labels}: it holds {listed(list(arrays))}", "labels"
        )
    names: tuple[str, ...] = ()
    if roles.names is not None:
        found = [str(column) for column in arrays[roles.names].reshape(-1)]
        if arrays[roles.examples["train"]].shape[1:] == (len(found),):
            names = tuple(found)
        else:
            roles.others.append(roles.names)
    if own_labels is not None and not single:
        options = replace(options, labels=None)
    examples = {part: arrays[roles.examples[part]] for part in PARTS if part in roles.examples}
    for part in examples if roles.masks else ():
        name = roles.masks.get(part)
        kind = "observed" if name and "observed" in name.lower() else "missing"
        mask = np.zeros(examples[part].shape, bool) if name is None else arrays[name]
        examples[part] = hide(examples[part], mask, kind, where)
    source = source_of_arrays(
        examples,
        {part: arrays[name] for part, name in roles.labels.items()},
        options,
        where,
        names,
    )
    unused = [f"{where}: {listed(roles.others)} not used"] if roles.others else []
    return replace(source, notes=(*unused, *source.notes))


def find_roles(names: list[str], where: str, labels: str | None = None) -> Roles:
    """Return what the arrays in a file are.

    An array belongs to the part that its name says (`train`, `validation`, `val`, `test`, ..), and
    holds examples (`x`, `data`, `images`, .., or the part's name alone) or labels (`y`, `labels`,
    `target`, ..), or says of each value whether it is `missing` or `observed`. Without a part's
    name it belongs to the training set. A file of one array needs no names.

    Args:
        names: the names of the arrays of numbers or strings.
        where: the name of the file, for messages.
        labels: the name of the array of labels, if the user gives one of `names`.

    Raises:
        InputError: if no array holds the training examples, or several do.
    """
    roles = Roles()
    for name in names:
        part, role = ("train", "labels") if name == labels else _role_of(name)
        if role == "names":
            roles.names = name
        elif role is None or part is None:
            roles.others.append(name)
        else:
            found = {"examples": roles.examples, "labels": roles.labels, "masks": roles.masks}[role]
            if part in found:
                raise InputError(
                    f"{where} holds {found[part]} and {name}, both of which could be the {role} of "
                    f"the {part} set: keep one of them",
                    "name",
                )
            found[part] = name
    unclear = [name for name in roles.others if any(word in name.lower() for word in MASK_HINTS)]
    unclear += [name for part, name in roles.masks.items() if part not in roles.examples]
    if unclear:
        raise InputError(
            f"{where} holds {listed(unclear)}, which may mark missing or observed values, and it "
            "is not clear of what: name it missing or observed, or missing_test, beside the "
            "examples that it is for",
            "name",
        )
    if not roles.examples and len(roles.others) == 1:
        roles.examples["train"] = roles.others.pop()
    if "train" not in roles.examples:
        raise InputError(
            f"{where} holds {', '.join(sorted(names)) or 'nothing'}: it should hold one array, or "
            "arrays named train and test (and validation), or x_train, y_train, x_test and y_test, "
            "or images and labels",
            "name",
        )
    roles.labels = {part: name for part, name in roles.labels.items() if part in roles.examples}
    return roles


def _role_of(name: str) -> tuple[str | None, Role | None]:
    """Return the part and the role that a name tells, or None."""
    lower = name.lower()
    if lower in NAME_WORDS:
        return None, "names"
    if lower in EXAMPLE_WORDS:
        return "train", "examples"
    separate = re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
    words = [word for word in re.split(r"[_\-. /]+", separate) if word]
    words = [piece for word in words for piece in _pieces(word)]
    parts = [PART_WORDS[word] for word in words if word in PART_WORDS]
    rest = [word for word in words if word not in PART_WORDS]
    if len(parts) > 1 or len(rest) > 1 or not words:
        return None, None
    part = parts[0] if parts else "train"
    if not rest or rest[0] in EXAMPLE_WORDS:
        return part, "examples"
    if rest[0] in MASK_WORDS:
        return part, "masks"
    return (part, "labels") if rest[0] in LABEL_WORDS else (None, None)


def _pieces(word: str) -> list[str]:
    """Return xtrain as x and train, and trainx as train and x."""
    for letter in "xy":
        if word[:1] == letter and word[1:] in PART_WORDS:
            return [letter, word[1:]]
        if word[-1:] == letter and word[:-1] in PART_WORDS:
            return [word[:-1], letter]
    return [word]
