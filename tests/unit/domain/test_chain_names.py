import pytest

from service.domain.chain_names import WELL_KNOWN, chain_id_of, explorer_of, split

ADDRESS = "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359"


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (ADDRESS, (None, ADDRESS)),
        (f"base:{ADDRESS}", ("base", ADDRESS)),
        (f":{ADDRESS}", ("", ADDRESS)),
        (f"a:b:{ADDRESS}", ("a", f"b:{ADDRESS}")),
    ],
)
def test_an_address_and_its_chain(text: str, parts: tuple[str | None, str]):
    assert split(text) == parts


@pytest.mark.parametrize(
    ("name", "chain_id"),
    [("eth", 1), ("sep", 11155111), ("base", 8453), ("basesep", 84532), ("oeth", 10), ("arb1", 42161), ("gno", 100)],
)
def test_well_known_chains(name: str, chain_id: int):
    assert chain_id_of(name, {}) == chain_id
    explorer = explorer_of(chain_id)
    assert explorer is not None
    assert explorer.startswith("https://")


def test_what_is_configured_goes_first():
    assert chain_id_of("base", {"base": 31337}) == 31337
    assert chain_id_of("anvil", {"anvil": 31337}) == 31337


@pytest.mark.parametrize("name", ["", "anvil", "Base", "eip155", "0", "08453", "-1", "9" * 19])
def test_an_unknown_name(name: str):
    with pytest.raises(ValueError, match="neither configured nor well known"):
        chain_id_of(name, {"local": 31337})


def test_an_unknown_chain_has_no_explorer():
    assert 31337 not in WELL_KNOWN
    assert explorer_of(31337) is None


def test_an_id_in_the_place_of_a_name():
    assert chain_id_of("8453", {}) == 8453
    assert chain_id_of("424242", {"424242": 7}) == 7, "what is configured goes first"
