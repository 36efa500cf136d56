"""MLflow's evaluation datasets (`mlflow.genai.datasets`), addressed as `mlflow:<name or id>`.

They are in the tracking store: a SQLite file, a server, or Databricks, where the name is that of a Unity Catalog
table (`catalog.schema.table`). A record has the shape of the agent-evaluation set: `inputs` of question and
history, `expectations`, and `tags`, where `citeqa.id` keeps a question's id. MLflow keeps records in no order of
ours, and merges records with the same inputs: of two questions with the same words and history it holds one.

Databricks takes no list of alternatives in the place of a document, and of a document its address alone: there,
all of them stand side by side, as its own tools read them, and the tag `citeqa.gold` holds the gold as it is.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval.formats.agent_evaluation_set import to_question, to_row
from eval.questions import Question
from retrieval.errors import ConfigurationError, GroundTruthError, StorageError
from retrieval.suggestions import did_you_mean, there_is
from retrieval.workspace_errors import workspace_errors

if TYPE_CHECKING:
    from mlflow.genai.datasets import EvaluationDataset

PREFIX = "mlflow:"

_ID = re.compile(r"d-[0-9a-f]{32}")
_ID_TAG = "citeqa.id"
_GOLD = "expected_retrieved_context"
_GOLD_TAG = "citeqa.gold"
_MLFLOW_TAGS = "mlflow."
_SQLITE = "sqlite:///"
_NAMED_AT_MOST = 10


def dataset_name(address: str | Path) -> str | None:
    """The name or id in `mlflow:<name or id>`; None for an address of another kind.

    Raises:
        ConfigurationError: if there is nothing after the colon.
    """
    text = str(address)
    if not text.startswith(PREFIX):
        return None
    name = text.removeprefix(PREFIX).strip()
    if not name:
        raise ConfigurationError(f"{text!r} names no dataset. Write {PREFIX}<name or id>.")
    return name


def read_mlflow_questions(name: str, store: str | None = None) -> Iterator[tuple[str, Question]]:
    """The questions of a dataset with their places, from `store` or else from where MLflow points.

    A record without `citeqa.id` gets the id that its question would get from any other format.

    Raises:
        GroundTruthError: if there is no such dataset, naming those there are, or a record is not usable.
        StorageError: if the store cannot be reached.
    """
    for record in _records(name, store):
        place = f"{PREFIX}{name}, record {record.get('dataset_record_id', '?')}"
        tags = _mapping(record.get("tags"))
        own = {
            key: value
            for key, value in tags.items()
            if key not in (_ID_TAG, _GOLD_TAG) and not key.startswith(_MLFLOW_TAGS)
        }
        row = {
            "id": tags.get(_ID_TAG),
            "inputs": record.get("inputs"),
            "expectations": _whole_gold(_mapping(record.get("expectations")), tags.get(_GOLD_TAG)),
            "tags": own,
        }
        yield place, to_question(row, place)


def write_mlflow_questions(
    questions: Iterable[Question], name: str, store: str | None = None, *, replace: bool = False
) -> str:
    """Write questions to the dataset `name`, made where there is none; its id. With `replace`, old records go.

    On Databricks, one that is made belongs to the experiment that MLflow is at. Of questions with the same words
    and history the first is written: see `held_by_mlflow`.

    Raises:
        GroundTruthError: if the dataset has records and is not to be replaced.
        StorageError: if the store refuses.
    """
    hold = held_by_mlflow()
    records = [_to_record(question) for question in questions if hold(question) is not None]
    with _store(store):
        if _on_databricks():
            records = [_for_databricks(record) for record in records]
        dataset = _find(name) or _create(name)
        there = dataset.to_df()
        if len(there) and not replace:
            raise GroundTruthError(
                f"{PREFIX}{name} holds {len(there)} records already. Choose another name, or replace them with "
                "--overwrite."
            )
        if len(there):
            dataset.delete_records(there["dataset_record_id"].tolist())
        dataset.merge_records(records)
        return str(dataset.dataset_id)


def held_by_mlflow() -> Callable[[Question], Question | None]:
    """What of each question MLflow holds, asked in their order: all of it, unless the same was asked before."""
    seen: set[str] = set()

    def hold(question: Question) -> Question | None:
        inputs = json.dumps(to_row(question)["inputs"], sort_keys=True)
        if inputs in seen:
            return None
        seen.add(inputs)
        return question

    return hold


def unread_record_fields(name: str, store: str | None = None) -> Counter[str]:
    """The fields of the records that no question holds, with the records counted."""
    return Counter(
        field for record in _records(name, store) for field in ("outputs", "source_id") if record.get(field)
    )


def _to_record(question: Question) -> dict[str, Any]:
    row = to_row(question)
    return {
        "inputs": row["inputs"],
        "expectations": row["expectations"],
        "tags": {**row.get("tags", {}), _ID_TAG: question.id},
    }


def _for_databricks(record: dict[str, Any]) -> dict[str, Any]:
    gold = record["expectations"][_GOLD]
    plain = [{"doc_uri": uri} for uri in _uris(gold)]
    if gold == plain:
        return record
    return {
        **record,
        "expectations": {**record["expectations"], _GOLD: plain},
        "tags": {**record["tags"], _GOLD_TAG: json.dumps(gold, ensure_ascii=False)},
    }


def _whole_gold(expectations: Mapping[str, Any], tag: Any) -> Mapping[str, Any]:
    """The gold as the tag has it, unless somebody has changed the documents since."""
    try:
        gold = json.loads(tag) if isinstance(tag, str) else None
        same = gold is not None and _uris(gold) == _uris(expectations.get(_GOLD) or [])
    except (ValueError, TypeError, AttributeError):
        return expectations
    return {**expectations, _GOLD: gold} if same else expectations


def _uris(gold: list[Any]) -> list[str]:
    """The addresses of the documents, alternatives among them, in their order."""
    items = [item for one in gold for item in (one if isinstance(one, list) else [one])]
    return [item if isinstance(item, str) else item.get("doc_uri") for item in items]


def _on_databricks() -> bool:
    import mlflow

    return str(mlflow.get_tracking_uri()).startswith("databricks")


def _records(name: str, store: str | None) -> list[dict[Any, Any]]:
    with _store(store, reading=name):
        dataset = _find(name)
        if dataset is None:
            raise _not_found(name)
        return [dict(record) for record in dataset.to_df().to_dict("records")]


def _mapping(value: Any) -> Mapping[str, Any]:
    # A table shows what is missing as NaN.
    return value if isinstance(value, Mapping) else {}


def _find(name: str) -> EvaluationDataset | None:
    from mlflow.exceptions import MlflowException
    from mlflow.genai.datasets import get_dataset

    if _on_databricks() and name.count(".") != 2:
        raise GroundTruthError(f"{PREFIX}{name} is no name in Unity Catalog. Write catalog.schema.table.")
    try:
        by = {"dataset_id": name} if _ID.fullmatch(name) else {"name": name}
        found: EvaluationDataset = get_dataset(**by)
        return found
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    except OSError as error:
        # databricks-sdk's, which need not be installed.
        if type(error).__name__ == "NotFound":
            return None
        raise


def _create(name: str) -> EvaluationDataset:
    from mlflow.genai.datasets import create_dataset

    if _ID.fullmatch(name):
        raise _not_found(name)
    created: EvaluationDataset = create_dataset(name=name)
    return created


def _not_found(name: str) -> GroundTruthError:
    import mlflow

    where = mlflow.get_tracking_uri()
    if where.startswith("databricks"):
        return GroundTruthError(f"There is no dataset {name!r} in Unity Catalog. Write catalog.schema.table.")
    # Not mlflow.genai's search, which shows the datasets of the last seven days only.
    names = [dataset.name for dataset in mlflow.MlflowClient().search_datasets(max_results=1000)]
    return GroundTruthError(
        f"The store at '{where}' has no evaluation dataset {name!r}. {did_you_mean(name, names)}"
        f"Datasets there: {there_is(names[:_NAMED_AT_MOST])}{', …' if len(names) > _NAMED_AT_MOST else ''}."
    )


def _dataset_errors() -> AbstractContextManager[None]:
    """Within, what a workspace refuses is a StorageError that says what to do."""
    if not _on_databricks():
        return nullcontext()
    return workspace_errors("The evaluation dataset in Unity Catalog", StorageError)


@contextmanager
def _store(uri: str | None, reading: str | None = None) -> Iterator[None]:
    """MLflow points to the store at `uri`, and afterwards to where it did before."""
    import mlflow

    from program.tracking import tracking_errors

    if uri is None:
        with tracking_errors(mlflow.get_tracking_uri()), _dataset_errors():
            yield
        return
    if reading is not None and uri.startswith(_SQLITE) and not Path(uri.removeprefix(_SQLITE)).exists():
        # MLflow would make one.
        raise GroundTruthError(
            f"There is no dataset {reading!r}, as there is no store at '{uri}'. Name it with --set tracking.uri=…"
        )
    before = mlflow.get_tracking_uri()
    with tracking_errors(uri):
        mlflow.set_tracking_uri(uri)
        try:
            with _dataset_errors():
                yield
        finally:
            mlflow.set_tracking_uri(before)
