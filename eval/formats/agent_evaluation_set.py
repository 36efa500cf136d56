"""Questions in the shape of Databricks' agent-evaluation set, one JSON object each.

The shape we write, with what a question has of it:

    {"id": "q1", "inputs": {"question": "…", "history": [{"role": "…", "content": "…"}]},
     "expectations": {"expected_retrieved_context": [{"doc_uri": "…"}], "expected_facts": ["…"]},
     "tags": {"type": "…", "split": "dev", "lang": "en"}}

Also read: the expectations at top level; `request` for `inputs` and `request_id` for `id`; a bare string, a
`query`, or `messages` (or a ResponsesAgent's `input`) within them, of which the last user message is the
question and the earlier ones its history. A gold document is `{"doc_uri", "grade"?, "chunk_id"?}` or a bare
URI; a list in its place holds alternatives. Other keys are left alone, as the set may carry any.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from eval.formats.writing import write_lines
from eval.questions import Gold, GoldItem, Question, hashed_id
from program.files import to_json
from retrieval.errors import GroundTruthError
from retrieval.tables import read_json_lines


def read_evaluation_set(path: Path) -> Iterator[tuple[str, Question]]:
    """The questions of a JSONL file with their places. Raises GroundTruthError as `to_question` does."""
    for place, row in read_json_lines(path, GroundTruthError):
        yield place, to_question(row, place)


def write_evaluation_set(questions: Iterable[Question], target: Path) -> None:
    """Write questions, one JSON object a line; what is read back is equal to them.

    Raises:
        StorageError: if the disk refuses.
    """
    write_lines(target, (to_json(to_row(question)) for question in questions))


def to_row(question: Question) -> dict[str, Any]:
    """The row that `to_question` reads as `question`; what the question lacks is left out."""
    inputs: dict[str, Any] = {"question": question.question}
    if question.history:
        inputs["history"] = [dict(turn) for turn in question.history]
    said = {
        "expected_facts": list(question.expected_facts),
        "expected_response": question.expected_response,
        "accepted_answers": list(question.accepted_answers),
    }
    return {
        "id": question.id,
        "inputs": inputs,
        "expectations": {
            "expected_retrieved_context": [_to_context(alternatives) for alternatives in question.gold],
            **{field: value for field, value in said.items() if value},
        },
        **({"tags": dict(question.tags)} if question.tags else {}),
    }


def unread_fields(path: Path) -> Counter[str]:
    """The fields of a JSONL file that no question holds (`guidelines`, `trace`, …), with their rows counted."""
    unread: Counter[str] = Counter()
    for _, row in read_json_lines(path, GroundTruthError):
        nested = _nested(row)
        unread.update(name for name in row if name not in _READ_AT_TOP)
        for section, read in (("inputs", _READ_INPUTS), ("expectations", _READ_EXPECTATIONS)):
            fields = row.get(section) if section in row else None
            if isinstance(fields, dict) and nested[section] is fields:
                unread.update(f"{section}.{name}" for name in fields if name not in read)
    return unread


def to_question(row: Mapping[str, Any], place: str) -> Question:
    """The question that a row holds.

    A row without any `expected_retrieved_context` is refused, since it would pass for unanswerable.

    Raises:
        GroundTruthError: if it holds none, or its fields are not usable; names the place, field and value.
    """
    try:
        parsed = _Row.model_validate(_nested(row))
        question, history = parsed.inputs.question_and_history()
        return Question(
            id=parsed.id or hashed_id(question, history),
            question=question,
            gold=_to_gold(parsed.expectations.expected_retrieved_context),
            expected_facts=parsed.expectations.expected_facts,
            expected_response=parsed.expectations.expected_response,
            accepted_answers=parsed.expectations.accepted_answers,
            tags=parsed.tags,
            history=history,
        )
    except ValidationError as error:
        raise GroundTruthError(f"{place}: {_describe(error)}") from None
    except GroundTruthError as error:
        raise GroundTruthError(f"{place}: {error}") from None


def _nested(row: Mapping[str, Any]) -> dict[str, Any]:
    inputs = row.get("inputs", row.get("request"))
    if inputs is None:
        inputs = {key: row[key] for key in ("question", "query", "messages") if key in row}
    return {
        **row,
        "inputs": {"question": inputs} if isinstance(inputs, str) else inputs,
        "expectations": row.get("expectations", row),
    }


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _as_item(value: Any) -> Any:
    return {"doc_uri": value} if isinstance(value, str) else value


def _as_text(value: Any) -> Any:
    """A message's content may be a list of parts; those with text are joined."""
    if not isinstance(value, list):
        return value
    texts = (part.get("text") for part in value if isinstance(part, dict))
    return "\n".join(text for text in texts if isinstance(text, str))


def _as_string(value: Any) -> Any:
    return str(value) if isinstance(value, bool | int | float) else value


def _without_nulls(value: Any) -> Any:
    return {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value


def _or(default: Any) -> BeforeValidator:
    """JSON's null, and an empty cell of a table, stand for the default."""
    return BeforeValidator(lambda value: default if value is None else value)


_String = Annotated[str, BeforeValidator(_as_string)]
_Strings = Annotated[tuple[str, ...], _or(())]


class _Item(BaseModel):
    model_config = ConfigDict(extra="ignore")
    doc_uri: _String
    grade: Annotated[int, _or(1)] = 1
    chunk_id: _String | None = None


class _Message(BaseModel):
    model_config = ConfigDict(extra="ignore")
    role: str
    content: Annotated[str, BeforeValidator(_as_text)]


class _Inputs(BaseModel):
    model_config = ConfigDict(extra="ignore")
    question: str | None = Field(None, validation_alias=AliasChoices("question", "query"))
    messages: list[_Message] = Field([], validation_alias=AliasChoices("messages", "input"))
    history: Annotated[list[_Message], _or([])] = []

    def question_and_history(self) -> tuple[str, tuple[dict[str, str], ...]]:
        if self.question is not None:
            return self.question, tuple(turn.model_dump() for turn in self.history)
        asked = [i for i, message in enumerate(self.messages) if message.role == "user"]
        if not asked:
            raise GroundTruthError(
                "inputs holds no question. Give inputs.question, inputs.query, or a user message in "
                "inputs.messages."
            )
        last = asked[-1]
        return self.messages[last].content, tuple(turn.model_dump() for turn in self.messages[:last])


_Alternatives = Annotated[list[Annotated[_Item, BeforeValidator(_as_item)]], BeforeValidator(_listed)]


class _Expectations(BaseModel):
    model_config = ConfigDict(extra="ignore")
    expected_retrieved_context: list[_Alternatives]
    expected_facts: _Strings = ()
    expected_response: Annotated[str, _or("")] = ""
    accepted_answers: _Strings = ()


class _Row(BaseModel):
    model_config = ConfigDict(extra="ignore")
    id: _String | None = Field(None, validation_alias=AliasChoices("id", "request_id", "question_id"))
    inputs: _Inputs
    expectations: _Expectations
    tags: Annotated[dict[str, _String], BeforeValidator(_without_nulls), _or({})] = {}


_READ_INPUTS = {"question", "query", "messages", "input", "history"}
_READ_EXPECTATIONS = set(_Expectations.model_fields)
_READ_AT_TOP = {
    *("id", "request_id", "question_id", "inputs", "request", "expectations", "tags"),
    *("question", "query", "messages"),
    *_READ_EXPECTATIONS,
}


def _to_context(alternatives: tuple[GoldItem, ...]) -> Any:
    items = [
        {
            "doc_uri": item.doc_uri,
            **({"grade": item.grade} if item.grade != 1 else {}),
            **({"chunk_id": item.chunk_id} if item.chunk_id is not None else {}),
        }
        for item in alternatives
    ]
    return items[0] if len(items) == 1 else items


def _to_gold(context: list[list[_Item]]) -> Gold:
    return tuple(
        tuple(GoldItem(item.doc_uri, item.grade, item.chunk_id) for item in alternatives)
        for alternatives in context
    )


def _describe(error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in first["loc"])
    if first["type"] == "missing":
        if first["loc"][-1] == "expected_retrieved_context":
            return (
                f"{field} is missing. Name the documents that answer the question, or give [] if none does."
            )
        return f"{field} is missing."
    value = repr(first["input"])
    return f"{field}: {first['msg']}, not {value if len(value) <= 60 else value[:57] + '…'}."
