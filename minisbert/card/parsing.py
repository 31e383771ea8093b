"""The text of a model card to its facts."""

from __future__ import annotations

import ast
import contextlib
import json
import re
from pathlib import Path
from urllib.parse import unquote

from ..errors import InputError
from ..storage.files import LONGEST_CARD, open_file
from .facts import (
    CardFacts,
    Citation,
    ColumnStatistics,
    DatasetFacts,
    Description,
    Evaluation,
    Link,
    LossFacts,
    Metric,
    NamedDataset,
    Origin,
    Parameters,
    Picture,
    TrainingLogs,
    TrainingTime,
    Usage,
    is_file_name,
)
from .front_matter import read_front_matter
from .markdown import Document, Section, between, read_code, read_document, read_link, read_table
from .rendering import HUB, SIMILARITIES

_TWICE_DECODED_MARK = "🤗".encode().decode("cp1252")
_CLASS = re.compile(r"(?:\[<code>(?P<linked>[^<]*)</code>\]\((?P<url>[^\s)]*)\)|<code>(?P<plain>[^<]*)</code>)")
_FIELD = re.compile(r"- \*?\*?([^*:]+?)\*?\*?: (.*)")
_MODULE = re.compile(r"\s*\(\d+\): (\w+)\((.*?)\)(?: with Transformer model: (\w+) ?)?")
_NUMBER = re.compile(r"-?(?:\d+\.?\d*(?:e[+-]?\d+)?|inf|nan)")
_PICTURE = re.compile(r"^!\[((?:\\.|[^\\\]\n])*)\]\((\S+?)\)$", re.MULTILINE)
_ESCAPED = re.compile(r"\\(.)|&#(10|13);", re.DOTALL)
_ORIGINS = ("Merge", "Distillation")
_SETTING = re.compile(r"- `(\w+)`: (.*)")


def read_card(path: str | Path) -> CardFacts:
    """The facts of the card in a file.

    Raises:
        InputError: the file cannot be read, or is not a generated card.
    """
    text = read_text(Path(path), "a model card, such as the README.md of a model")
    try:
        return parse(text)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def read_text(path: Path, expected: str) -> str:
    """The text of a file, for a reader of `expected`.

    Raises:
        InputError: it cannot be read, is no text in UTF-8, or is far too long.
    """
    try:
        with open_file(path) as file:
            content = file.read(LONGEST_CARD + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read {path} ({reason}); expected {expected}: check the path") from None
    with contextlib.suppress(UnicodeDecodeError):
        text = content.decode("utf-8-sig")
        if "\0" not in text and len(content) <= LONGEST_CARD:
            return text
    raise InputError(
        f"{path} is not text in UTF-8 of at most {LONGEST_CARD:,} bytes; expected {expected}: convert it, or pass "
        f"another file or folder"
    )


def parse(text: str) -> CardFacts:
    """The facts of a card as sentence-transformers 4, 5 and 6 and minisbert generate it.

    A card whose UTF-8 was read as cp1252 on its way is repaired first.

    Raises:
        InputError: the text is not such a card.
    """
    card = read_document(repair(text))
    if "Model Description" not in card.sections:
        raise InputError(
            "got a text without the section 'Model Description'; expected the README.md of a model saved by "
            "sentence-transformers 4, 5 or 6 or minisbert: pass its text"
        )
    try:
        return _facts(card)
    except InputError:
        raise
    except (KeyError, IndexError, ValueError, OverflowError) as error:
        raise InputError(f"got a model card that cannot be read ({error}); expected it as it was generated") from None


def repair(text: str) -> str:
    """A card whose UTF-8 was read as cp1252 on its way, as it was before.

    Only a card that shows the sign of it is changed, and of that the lines that can be taken back.
    """
    return "\n".join(map(_repaired, text.split("\n"))) if _TWICE_DECODED_MARK in text else text


def _repaired(line: str) -> str:
    try:
        return line.encode("cp1252").decode("utf-8")
    except UnicodeError:
        return line


def comes_from_fit(card: CardFacts) -> bool:
    """Return True if the reference's `fit` made the card.

    Its optimizer and schedule are its own, so that learning rate, weight decay and warm-up are listed in such a card as
    defaults that were not used. Cards of minisbert's `fit` state the true ones. The sign is that it prints a whole
    number where the Trainer has 1.0; a `fit` with a `max_grad_norm` of its own is not recognized.
    """
    datasets = card.training_datasets
    unnamed = bool(datasets) and all(
        not dataset.name
        and all(column == "label" or re.fullmatch(r"sentence_\d+", column) for column in dataset.columns)
        for dataset in datasets
    )
    return unnamed and card.hyperparameters.get("max_grad_norm") == "1"


def read_module(line: str) -> tuple[str, str, str] | None:
    """Kind, settings and the transformer's class in a line of the printed model, each "" if missing.

    None for any other line.
    """
    found = _MODULE.fullmatch(line)
    return (found[1], found[2], found[3] or "") if found else None


# ---- sections -------------------------------------------------------------------------------------------------------


def _facts(card: Document) -> CardFacts:
    architecture = read_code(card.text("Full Model Architecture"), "")
    time = _fields(card.text("Training Time"))
    details = card.parts_of("Training Details")
    return CardFacts(
        title=card.parts[0].title,
        front_matter=read_front_matter(card.front_matter),
        description=_description(card.text("Model Description")),
        architecture=tuple(architecture.split("\n")) if architecture else (),
        usage=_usage(card.text("Direct Usage (Sentence Transformers)")),
        sources=_links(re.sub(r"^- \*\*[^*\n]*:\*\* ", "- ", card.text("Model Sources"), flags=re.MULTILINE)),
        origin=next(
            (Origin(kind, facts) for kind in _ORIGINS if (facts := _fields(card.text(f"{kind} Details")))), None
        ),
        evaluations=tuple(map(_evaluation, card.parts_of("Metrics"))),
        training_datasets=tuple(map(_dataset, card.parts_of("Training Dataset", "Training Datasets"))),
        evaluation_datasets=tuple(map(_dataset, card.parts_of("Evaluation Dataset", "Evaluation Datasets"))),
        non_default_hyperparameters=_hyperparameters(card.text("Non-Default Hyperparameters")),
        hyperparameters=_hyperparameters(card.text("All Hyperparameters")),
        logs=_logs(card.text("Training Logs")) if card.text("Training Logs") else None,
        training_time=TrainingTime(time["Training"], time.get("Evaluation"), time.get("Total"))
        if card.text("Training Time")
        else None,
        pictures=_pictures("\n".join(part.text for part in details if part.title == "Pictures")),
        versions=_fields(card.text("Framework Versions")),
        resources=_links(card.text("Additional Resources")),
        citations=tuple(
            Citation(tuple(re.split(r", | and ", part.title)), read_code(part.text, "bibtex") or "")
            for part in card.parts_of("BibTeX")
        ),
    )


def _description(text: str) -> Description:
    # The first field of a name counts.
    fields = dict(reversed(re.findall(r"^ *- \*\*([^*\n]+):\*\* (.*)$", text, re.MULTILINE)))
    if fields.get("Model Type") != "Sentence Transformer":
        raise InputError(
            f"got the card of a model of type {fields.get('Model Type')!r}; expected 'Sentence Transformer': pass "
            f"the card of a sentence-embedding model"
        )
    base, _, comment = fields.get("Base model", "").partition(" <!-- at revision ")
    link = read_link(base) if not comment or comment.endswith(" -->") else None
    length, similarity = fields.get("Maximum Sequence Length"), fields.get("Similarity Function", "")
    named = re.search(r"^- \*\*Training Datasets?:\*\*\n((?:    - .*\n?)*)", text, re.MULTILINE)
    return Description(
        dimension=_whole(fields.get("Output Dimensionality")),
        max_seq_length=float("inf") if length == "inf tokens" else _whole(length),
        similarity=next((name for name, title in SIMILARITIES.items() if title == similarity), similarity),
        base_model=link[0] if link else None,
        base_model_revision=comment.removesuffix(" -->") or None if link else None,
        max_query_length=_whole(fields.get("Maximum Query Length")),
        max_document_length=_whole(fields.get("Maximum Document Length")),
        modalities=_names(fields.get("Supported Modality") or fields.get("Supported Modalities")),
        training_datasets=tuple(map(_named_dataset, re.findall(r"^    - (.*)$", named[1] if named else "", re.M))),
        language=_names(fields.get("Language") or fields.get("Languages")),
        license=fields.get("License"),
    )


def _usage(text: str) -> Usage | None:
    """The example, or None where there is no code with texts."""
    code = read_code(text, "python") or ""
    model = re.search(r'^model = SentenceTransformer\("(.*)"\)$', code, re.MULTILINE)
    queries, sentences = _texts(code, "queries"), _texts(code, "documents") or _texts(code, "sentences")
    if model is None or not sentences:
        return None
    printed = re.search(r"^print\(similarities\)\n((?:#.*\n?)+)", code, re.MULTILINE)
    rows = re.findall(r"\[([^\[\]]+)\]", printed[1]) if printed else []
    similarities = tuple(tuple(map(float, _NUMBER.findall(row))) for row in rows) or None
    return Usage(model[1], (*queries, *sentences), bool(queries), similarities)


def _texts(code: str, name: str) -> tuple[str, ...]:
    """The texts of a list in Python code, one on a line."""
    lines = code.split("\n")
    try:
        start = lines.index(f"{name} = [")
        end = lines.index("]", start)
    except ValueError:
        return ()
    return tuple(_text(line.strip(" ").removesuffix(",")) for line in lines[start + 1 : end])


def _text(literal: str) -> str:
    # A query can be written as JSON, where a character beyond the basic plane is a pair of escapes.
    for read in (json.loads, ast.literal_eval):
        try:
            return str(read(literal))
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    return literal


def _evaluation(section: Section) -> Evaluation:
    evaluated = next((line for line in section.lines if line.startswith("* Evaluated with ")), "")
    named = re.search(r"^\* Datasets?: (.*)$", section.text, re.MULTILINE)
    header, rows = read_table(section.text)
    return Evaluation(
        section.title,
        *_class(evaluated.removeprefix("* Evaluated with ")),
        datasets=header[1:] if len(header) > 2 else tuple(re.findall(r"`(.*?)`", named[1])) if named else (),
        parameters=read_parameters(section.text),
        metrics=tuple(
            Metric(_unbold(name), tuple(read_number(_unbold(value)) for value in values), _unbold(name) != name)
            for name, *values in rows
        ),
    )


def _dataset(section: Section) -> DatasetFacts:
    text = section.text
    fields = dict(re.findall(r"^\* ([^:\n]+?): (.*)$", text, re.MULTILINE))
    place, _, tree = fields.get("Dataset", "").partition(" at [")
    at_revision = "/tree/" in tree.partition("](")[2] and tree.endswith(")")
    named = _named_dataset(place if at_revision else fields.get("Dataset", ""))
    columns = tuple(between(fields.get("Columns", ""), "<code>", "</code>"))
    statistics = text.partition("\n* Approximate statistics based on the first ")[2]
    samples = text.partition("\n* Samples:\n")[2]
    shown = tuple(tuple(map(_sample, row)) for row in read_table(samples)[1]) if samples else ()
    if any(len(row) != len(columns) for row in shown):
        raise InputError(f"got a model card with samples of other columns than {columns}; expected it as generated")
    loss = text[text.rfind("\n* Loss: ") + len("\n* Loss: ") :]
    size = fields.get("Size")
    return DatasetFacts(
        name=named.name,
        loss=LossFacts(*_class(loss), read_parameters(loss)),
        columns=columns,
        size=int(size.split(" ")[0].replace(",", "")) if size else None,
        id=named.id,
        revision=tree[:-1].rpartition("/tree/")[2] if at_revision else None,
        statistics_rows=_whole(statistics),
        statistics=_statistics(statistics) if statistics else (),
        samples=shown,
    )


def _statistics(text: str) -> tuple[ColumnStatistics, ...]:
    (_, *columns), rows = read_table(text)
    cells = {name: values for name, *values in rows}
    modalities = cells.get("modality", [None] * len(columns))
    details = [
        tuple((name, value) for name, _, value in (item.rpartition(": ") for item in between(cell, "<li>", "</li>")))
        for cell in cells["details"]
    ]
    return tuple(map(ColumnStatistics, columns, cells["type"], modalities, details))


def _sample(cell: str) -> str:
    text = cell.removeprefix("<code>").removesuffix("</code>") if cell.startswith("<code>") else cell
    return text.replace("<br>", "\n").replace("\\|", "|")


def _hyperparameters(text: str) -> dict[str, str]:
    """Values as printed by name."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in text.split("\n"):
        if setting := _SETTING.fullmatch(line):
            name = setting[1]
            found[name] = [setting[2]]
        elif line == "</details>":
            break
        elif name:  # a value of several lines
            found[name].append(line)
    return {name: "\n".join(lines).rstrip("\n") for name, lines in found.items()}


def _logs(text: str) -> TrainingLogs:
    header, rows = read_table(text)
    bold = tuple(index for index, row in enumerate(rows) if all(_unbold(cell) != cell for cell in row))
    plain = (tuple(map(_unbold, row)) if index in bold else row for index, row in enumerate(rows))
    return TrainingLogs(header, tuple(plain), bold)


def _pictures(text: str) -> tuple[Picture, ...]:
    """The pictures of the section; an image that is not a file beside the card is skipped."""
    found = (
        (_ESCAPED.sub(lambda mark: mark[1] or chr(int(mark[2])), title), unquote(target))
        for title, target in _PICTURE.findall(text)
    )
    return tuple(Picture(title, file) for title, file in found if is_file_name(file))


# ---- parts of a section ---------------------------------------------------------------------------------------------


def _fields(text: str) -> dict[str, str]:
    """Lines such as "- **Training**: 3.1 seconds" by name."""
    return {field[1]: field[2] for line in text.split("\n") if (field := _FIELD.fullmatch(line))}


def _links(text: str) -> tuple[Link, ...]:
    """The links of a list, one on a line."""
    found = []
    for line in text.split("\n"):
        title, middle, rest = line.removeprefix("- [").partition("](")
        url, end, _ = rest.partition(")")
        if line.startswith("- [") and title and middle and end and not re.search(r"\s", url):
            found.append(Link(title, url))
    return tuple(found)


def _named_dataset(text: str) -> NamedDataset:
    """A data set from its name, which may be a link to the Hub."""
    title, url = read_link(text) or ("", "")
    place = url.removeprefix(f"{HUB}/datasets/")
    return NamedDataset(title, place) if title and place and place != url else NamedDataset(text)


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(text.split(", ")) if text else ()


def _class(text: str) -> tuple[str, str | None]:
    """Name and documentation of the class that `text` begins with."""
    found = _CLASS.match(text)
    return (found["linked"] or found["plain"], found["url"]) if found else (text.split(" ")[0], None)


def read_parameters(text: str) -> Parameters | None:
    """The block of JSON in `text`, or None if there is none."""
    code = read_code(text, "json")
    if code is None:
        return None
    try:
        values = json.loads(code)
        return values if isinstance(values, dict) and json.dumps(values, indent=4) == code else code
    except (ValueError, RecursionError):
        return code


def _unbold(cell: str) -> str:
    return cell[2:-2] if len(cell) >= 4 and cell.startswith("**") and cell.endswith("**") else cell


def _whole(text: str | None) -> int | None:
    """The whole number that `text` begins with."""
    number = (text or "").split(" ")[0]
    return int(number) if number.isdecimal() else None


def read_number(text: str) -> int | float | str:
    """The number that prints as `text`, or `text` if there is none."""
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        if str(value) == text and value == value:
            return value
    return text
