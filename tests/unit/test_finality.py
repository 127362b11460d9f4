import pytest

from service.domain.finality import FINALIZED, SAFE, Confirmations, Finality, parse_finality


@pytest.mark.parametrize(
    ("text", "finality"),
    [
        ("confirmations:0", Confirmations(0)),
        ("confirmations:12", Confirmations(12)),
        ("safe", SAFE),
        ("finalized", FINALIZED),
    ],
)
def test_text_forms_and_back(text: str, finality: Finality):
    assert parse_finality(text) == finality
    assert str(finality) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "latest",
        "SAFE",
        "confirmations",
        "confirmations:",
        "confirmations:-1",
        "confirmations:1.5",
        "12",
        "confirmations:\u0661",
        "safe\n",
    ],
)
def test_anything_else_is_refused(text: str):
    with pytest.raises(ValueError, match="confirmations:<blocks>, safe or finalized"):
        parse_finality(text)


def test_confirmations_are_not_negative():
    with pytest.raises(ValueError, match="negative"):
        Confirmations(-1)
