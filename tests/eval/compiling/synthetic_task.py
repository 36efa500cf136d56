"""A made-up collection and 240 questions about it, on which a program can be taught, and retrieval too.

60 documents (12 in Japanese) each describe one object by four of its six details. `train`, `dev` and `test` have 80
questions each about 20 documents of their own: a fifth are about details that no document gives, and more than a
quarter are asked in everyday words that the documents never use, so that a search finds nothing unless the query is
put into the collection's words. `VOCABULARY` has these words; `rule_following_model.py` knows them.

    write_corpus(folder / "corpus.jsonl")            rows {doc_uri, title, text, lang} for citeqa index
    write_questions(folder / "questions.jsonl")      Databricks' agent-evaluation set, with expected_facts
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SITE = "https://collection.example/"
SPLITS = ("train", "dev", "test")
QUESTIONS_PER_SPLIT = 80
UNANSWERABLE_PER_SPLIT = 16
EVERYDAY_SHARE = 0.28
DETAILS_GIVEN = 4


@dataclass(frozen=True, slots=True)
class Detail:
    """One detail of an object: the sentence that states it, questions in the collection's words, one in others.

    `{name}` is the object as the collection calls it, `{known_as}` as everyday language does, `{value}` the fact.
    """

    sentence: str
    questions: tuple[str, ...]
    everyday_questions: tuple[str, ...]
    value: Callable[[random.Random], str]


@dataclass(frozen=True, slots=True)
class Language:
    """Objects are an adjective and a noun; each has an everyday word beside the collection's."""

    code: str
    adjectives: dict[str, str]
    nouns: dict[str, str]
    joint: str
    details: tuple[Detail, ...]
    opening: str
    filler: tuple[str, ...]


_ENGLISH_ADJECTIVES = {
    "amber": "yellow",
    "cobalt": "blue",
    "crimson": "red",
    "ivory": "white",
    "ebony": "black",
    "verdant": "green",
    "gilded": "golden",
    "slender": "thin",
    "boreal": "northern",
    "antique": "old",
    "portable": "handheld",
    "sunken": "underwater",
}
_ENGLISH_NOUNS = {
    "kettle": "teapot",
    "lantern": "lamp",
    "ferry": "boat",
    "loom": "weaving frame",
    "barometer": "pressure gauge",
    "anvil": "smith's block",
    "compass": "direction finder",
    "bellows": "air pump",
    "hourglass": "sand timer",
    "spindle": "yarn rod",
    "carillon": "bell tower",
    "plough": "tiller",
}
_MAKERS = (
    "Alder",
    "Brine",
    "Corvin",
    "Dunmore",
    "Elstow",
    "Farrow",
    "Galt",
    "Hesper",
    "Ingram",
    "Jory",
    "Kestrel",
)
_TOWNS = (
    "Ashby",
    "Birkdale",
    "Cresswell",
    "Dunholm",
    "Eskmouth",
    "Fenwick",
    "Garston",
    "Harrowgate",
    "Ilmer",
)
_PLACES = (
    "orchard",
    "chapel",
    "granary",
    "harbour",
    "archway",
    "cloister",
    "terrace",
    "windmill",
    "fountain",
)
_OILS = ("linseed", "rapeseed", "walnut", "olive", "sesame")
_FAMILY_NAMES = ("高橋", "渡辺", "松本", "清水", "藤原")
_ARTIST_NAMES = ("光雲", "玄斎", "宗達", "春草")

ENGLISH = Language(
    "en",
    _ENGLISH_ADJECTIVES,
    _ENGLISH_NOUNS,
    " ",
    (
        Detail(
            "The mass of the {name} is {value}.",
            ("What is the mass of the {name}?", "Please tell me the mass of the {name}."),
            ("How heavy is the {known_as}?", "Tell me how heavy the {known_as} is."),
            lambda draw: f"{draw.randint(12, 980)} kilograms",
        ),
        Detail(
            "The artisan of the {name} was {value}.",
            ("Who was the artisan of the {name}?", "Which artisan does the {name} have?"),
            ("Who made the {known_as}?", "By whom was it made, the {known_as}?"),
            lambda draw: f"{draw.choice(_MAKERS)} of {draw.choice(_TOWNS)}",
        ),
        Detail(
            "The vault of the {name} lies under the {value}.",
            ("Where is the vault of the {name}?", "Under what is the vault of the {name}?"),
            ("Where do they keep the {known_as}?", "In what room do they keep the {known_as}?"),
            lambda draw: f"{draw.choice(_TOWNS)} {draw.choice(_PLACES)}",
        ),
        Detail(
            "The unveiling of the {name} took place in {value}.",
            (
                "When was the unveiling of the {name}?",
                "In what year did the unveiling of the {name} take place?",
            ),
            ("When was the {known_as} first shown?", "What year was the {known_as} first shown in?"),
            lambda draw: str(draw.randint(1502, 1949)),
        ),
        Detail(
            "The upkeep of the {name} takes {value} a month.",
            ("What does the upkeep of the {name} take?", "Which oil is the upkeep of the {name} with?"),
            ("What is needed for looking after the {known_as}?", "Looking after the {known_as}: with what?"),
            lambda draw: f"{draw.randint(2, 60)} liters of {draw.choice(_OILS)} oil",
        ),
        Detail(
            "The tariff for a loan of the {name} is {value}.",
            ("What is the tariff for a loan of the {name}?", "Tell me the loan tariff of the {name}."),
            ("What would it cost me to borrow the {known_as}?", "Borrow the {known_as}: what would it cost?"),
            lambda draw: f"{draw.randint(3, 95)} crowns",
        ),
    ),
    "This entry of the {place} register was last revised by the curators.",
    (
        "Photographs may be taken from the gallery.",
        "Scholars have written about its ornaments at length.",
        "A replica stands in the entrance hall.",
        "The label beside it was lettered by hand.",
    ),
)

JAPANESE = Language(
    "ja",
    {"青銅": "ブロンズ", "翡翠": "緑石", "象牙": "牙材", "漆黒": "真黒"},
    {"鐘": "ベル", "杯": "カップ", "笛": "フルート"},
    "の",
    (
        Detail(
            "{name}の質量は{value}です。",
            ("{name}の質量はどれくらいですか。",),
            ("{known_as}の重さはどれくらいですか。",),
            lambda draw: f"{draw.randint(12, 980)}キログラム",
        ),
        Detail(
            "{name}の匠は{value}です。",
            ("{name}の匠はだれですか。",),
            ("{known_as}を作った人はだれですか。",),
            lambda draw: draw.choice(_FAMILY_NAMES) + draw.choice(_ARTIST_NAMES),
        ),
        Detail(
            "{name}の宝庫は{value}の下にあります。",
            ("{name}の宝庫はどこの下にありますか。",),
            ("{known_as}をしまってあるところはどこですか。",),
            lambda draw: (
                f"{draw.choice(['東山', '西浜', '南町', '北沢'])}{draw.choice(['神社', '図書館', '水車', '果樹園'])}"
            ),
        ),
        Detail(
            "{name}の初披露は{value}でした。",
            ("{name}の初披露はいつでしたか。",),
            ("{known_as}がはじめて見せられたのはいつですか。",),
            lambda draw: f"{draw.randint(1502, 1949)}年",
        ),
        Detail(
            "{name}の保全には毎月{value}がいります。",
            ("{name}の保全にはなにがいりますか。",),
            ("{known_as}の手入れにはなにがいりますか。",),
            lambda draw: f"{draw.randint(2, 60)}リットルの{draw.choice(['菜種油', '胡麻油', '椿油'])}",
        ),
        Detail(
            "{name}の貸与料は{value}です。",
            ("{name}の貸与料はいくらですか。",),
            ("{known_as}をかりるにはいくらかかりますか。",),
            lambda draw: f"{draw.randint(3, 95)}クローネ",
        ),
    ),
    "この項目は{place}目録のもので、学芸員が改訂しました。",
    ("写真は回廊から撮影できます。", "装飾については多くの論文があります。", "複製は玄関広間にあります。"),
)

VOCABULARY = {
    **{everyday: word for word, everyday in (ENGLISH.adjectives | ENGLISH.nouns).items()},
    **{everyday: word for word, everyday in (JAPANESE.adjectives | JAPANESE.nouns).items()},
    "how heavy": "mass",
    "who made": "artisan",
    "by whom was it made": "artisan",
    "where do they keep": "vault",
    "in what room do they keep": "vault",
    "first shown": "unveiling",
    "is needed for looking after": "upkeep",
    "looking after": "upkeep",
    "what would it cost me to borrow": "tariff loan",
    "what would it cost": "tariff",
    "borrow": "loan",
    "重さ": "質量",
    "作った人": "匠",
    "しまってあるところ": "宝庫",
    "はじめて見せられた": "初披露",
    "手入れ": "保全",
    "をかりるにはいくらかかりますか": "の貸与料",
}
"""What everyday language says, and what the collection calls it."""


@dataclass(frozen=True, slots=True)
class _Object:
    """One object, its document, and what can be asked about it."""

    uri: str
    language: Language
    name: str
    known_as: str
    values: dict[int, str]
    text: str


def corpus(seed: int = 0) -> list[dict[str, str]]:
    """The documents: `doc_uri`, `title`, `text` and `lang`."""
    return [
        {"doc_uri": o.uri, "title": o.name, "text": o.text, "lang": o.language.code} for o in _objects(seed)
    ]


def questions(seed: int = 0) -> list[dict[str, Any]]:
    """The rows of the question set, in the shape of Databricks' agent-evaluation set, split by split."""
    draw = random.Random(f"questions {seed}")
    objects = _objects(seed)
    draw.shuffle(objects)
    # Both languages go to each split alike, and no document to two.
    objects.sort(key=lambda o: o.language.code)
    rows = []
    for place, split in enumerate(SPLITS):
        rows += _rows_of_split(split, objects[place :: len(SPLITS)], draw)
    return rows


def write_corpus(path: Path, seed: int = 0) -> Path:
    """Write `corpus` as JSON lines."""
    return _write(path, corpus(seed))


def write_questions(path: Path, seed: int = 0) -> Path:
    """Write `questions` as JSON lines."""
    return _write(path, questions(seed))


def _objects(seed: int) -> list[_Object]:
    draw = random.Random(f"objects {seed}")
    english = [
        (a, n)
        for i, a in enumerate(ENGLISH.adjectives)
        for j, n in enumerate(ENGLISH.nouns)
        if (j - i) % 12 < 4
    ]
    japanese = [(a, n) for a in JAPANESE.adjectives for n in JAPANESE.nouns]
    pairs = [(ENGLISH, *pair) for pair in english] + [(JAPANESE, *pair) for pair in japanese]
    return [_object(number, *pair, draw) for number, pair in enumerate(pairs)]


def _object(number: int, language: Language, adjective: str, noun: str, draw: random.Random) -> _Object:
    name = adjective + language.joint + noun
    known_as = language.adjectives[adjective] + language.joint + language.nouns[noun]
    given = draw.sample(range(len(language.details)), DETAILS_GIVEN)
    values = {detail: language.details[detail].value(draw) for detail in given}
    facts = [language.details[d].sentence.format(name=name, value=value) for d, value in values.items()]
    place = draw.choice(_TOWNS) if language is ENGLISH else draw.choice(["東", "西", "南", "北"])
    body = [language.opening.format(place=place), *facts, *draw.sample(language.filler, 2)]
    # The opening stays first: an answer that takes the first sentence states no fact.
    rest = body[1:]
    draw.shuffle(rest)
    text = ("" if language is JAPANESE else " ").join([body[0], *rest])
    return _Object(f"{SITE}{language.code}/{number:02}", language, name, known_as, values, text)


def _rows_of_split(split: str, objects: Sequence[_Object], draw: random.Random) -> list[dict[str, Any]]:
    pairs = [(o, detail) for o in objects for detail in range(len(o.language.details))]
    given = [(o, detail) for o, detail in pairs if detail in o.values]
    missing = [(o, detail) for o, detail in pairs if detail not in o.values]
    chosen = draw.sample(given, QUESTIONS_PER_SPLIT - UNANSWERABLE_PER_SPLIT)
    chosen += draw.sample(missing, UNANSWERABLE_PER_SPLIT)
    draw.shuffle(chosen)
    return [_row(f"{split}-{number:02}", split, *pair, draw) for number, pair in enumerate(chosen)]


def _row(id_: str, split: str, about: _Object, number: int, draw: random.Random) -> dict[str, Any]:
    detail = about.language.details[number]
    everyday = draw.random() < EVERYDAY_SHARE
    wording = draw.choice(detail.everyday_questions if everyday else detail.questions)
    value = about.values.get(number)
    kind = "unanswerable" if value is None else "everyday" if everyday else "lookup"
    expectations: dict[str, Any] = {"expected_retrieved_context": [{"doc_uri": about.uri}] if value else []}
    if value:
        expectations["expected_facts"] = [value]
        expectations["expected_response"] = detail.sentence.format(name=about.name, value=value)
    return {
        "id": id_,
        "inputs": {"question": wording.format(name=about.name, known_as=about.known_as)},
        "expectations": expectations,
        "tags": {"type": kind, "lang": about.language.code, "split": split},
    }


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    lines = (json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
