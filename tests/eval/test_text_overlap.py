import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.text_overlap import contained_share, token_f1

TEXT = st.text(alphabet="ab1. ,the設定値トレのはを[]_½ ")


@pytest.mark.parametrize(
    ("answer", "expected", "f1"),
    [
        ("The cat sat.", "cat sat", 1.0),
        ("cat", "the cat sat", 2 / 3),
        ("a dog", "the cat", 0.0),
        ("cat cat", "cat", 2 / 3),
        ("It is stored [1, 2] there.", "it is stored there", 1.0),
        ("ＭＬｆｌｏｗ　３．１７", "mlflow 3.17", 1.0),
        ("1,000 rows", "1000 rows", 1.0),
        ("設定値", "設定", 2 * 2 / 5),
        ("設定値。", "「設定値」", 1.0),
        ("ﾄﾚｰｽ", "トレース", 1.0),
        ("DSPyの設定", "DSPy の 設定", 1.0),
        ("", "", 1.0),
        ("...", "cat", 0.0),
    ],
)
def test_token_f1_counts_shared_tokens_in_any_script(answer: str, expected: str, f1: float) -> None:
    assert token_f1(answer, expected) == pytest.approx(f1)


@pytest.mark.parametrize(
    ("answer", "fact", "share"),
    [
        ("Traces are kept in an SQLite store by default.", "the traces are in SQLite", 1.0),
        ("The default is 10.", "the default is 5", 0.5),
        ("It is what it is.", "the default is 5", 0.0),
        ("It takes 1000 rows.", "takes 1,000 rows", 1.0),
        ("See page [5].", "the default is 5", 0.0),
        ("トレースは、SQLite の store に保存されます。", "SQLiteに保存されるトレース", 1.0),
        ("これはそれではありません。", "それは設定では変えられません", 0.0),
        ("自動評価の機能", "評価機能", 2 / 3),
        ("値は五です", "値", 1.0),
        ("とてもよい", "よい", 1.0),
        ("not so", "it is", 0.0),
        ("x → y", "→", 1.0),
    ],
)
def test_a_fact_is_contained_by_its_content_terms(answer: str, fact: str, share: float) -> None:
    assert contained_share(answer, fact) == pytest.approx(share)


@given(TEXT, TEXT)
def test_both_measures_lie_between_zero_and_one(one: str, other: str) -> None:
    assert 0 <= token_f1(one, other) <= 1
    assert 0 <= contained_share(one, other) <= 1


@given(TEXT)
def test_a_text_agrees_with_itself_and_contains_itself(text: str) -> None:
    assert token_f1(text, text) == 1
    assert contained_share(text, text) == 1


@given(TEXT, TEXT)
def test_token_f1_is_symmetric(one: str, other: str) -> None:
    assert token_f1(one, other) == token_f1(other, one)
