"""Two spellings of one name are found, and names that systems give to copies."""

import unicodedata

import pytest

from pipeline.errors import BadInput
from pipeline.tiles.datasets.names import check_spellings, copies, name_key, quoted, spellings

NFC, NFD = (unicodedata.normalize(form, "Épithélium") for form in ("NFC", "NFD"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Tumor", "tumor"),
        ("TUMOR", "tumor"),
        (NFC, NFD),
        (NFC.upper(), NFD.lower()),
        ("Tumor", "Tumor "),
        ("Tumor", "\u00a0Tumor"),
        ("Tumor bed", "Tumor  bed"),
        ("Tumor bed", "Tumor\u00a0bed"),
        ("Tumor", "Tu\u200bmor"),
        ("Tumor", "\ufeffTumor"),
        ("Tumor", "Tu\u00admor"),
        ("Straße", "STRASSE"),
        ("µm", "μm"),  # micro sign and Greek mu
        ("İ", "i̇"),
    ],
)
def test_spellings_of_one_name(one: str, other: str) -> None:
    assert name_key(one) == name_key(other)
    assert spellings([one, other, one, "Stroma"]) == [sorted([one, other])]
    with pytest.raises(BadInput) as caught:
        check_spellings([one, "Stroma", other], what="classes", where="here", option="--differ")
    message = str(caught.value)
    assert quoted(one) != quoted(other)
    assert all(part in message for part in ("here", quoted(one), quoted(other), "--differ"))


@pytest.mark.parametrize(
    ("one", "other"), [("P1", "P01"), ("Tumor", "Tumour"), ("a-b", "a_b"), ("a b", "ab"), ("é", "e"), ("1", "l")]
)
def test_different_names(one: str, other: str) -> None:
    assert name_key(one) != name_key(other)
    check_spellings([one, other], what="classes", where="here", option="--differ")


def test_further_spellings_are_counted() -> None:
    with pytest.raises(BadInput, match="'A' and 'a' \\(and 1 more\\)"):
        check_spellings(["b", "A", "B", "a", "C"], what="groups", where="here", option="--differ")


@pytest.mark.parametrize(
    "copy",
    [
        "A - Copy",
        "A - Copy (2)",
        "A - copy",
        "A (1)",
        "A(1)",
        "A copy",
        "A copy 2",
        "A (copy)",
        "A (another copy)",
        "A (3rd copy)",
        "A (Anna's conflicted copy 2024-01-01)",
        "Copy of A",
        "Copy (2) of A",
        "Kopie von A",
        "A - Kopie",
        "Copie de A",
        "A - Copie",
        "Copia de A",
        "A - 副本",
        "A的副本",
        "A - コピー",
        "Aのコピー",
    ],
)
def test_a_copy_is_named_with_its_original(copy: str) -> None:
    assert copies(["B", copy, "A"]) == [(copy, "A")]
    assert copies(["B", copy]) == []


@pytest.mark.parametrize("name", ["A1", "A_copy", "A (B)", "copy", "A.copy", "Acopy", "A - 2", "A 2"])
def test_other_names_are_no_copies(name: str) -> None:
    """Kather 2016 has names that end in _copy."""
    assert copies([name, "A", "B"]) == []
