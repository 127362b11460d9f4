import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from service.api.compose_file import NotACompose, check_compose

GOOD = {
    "plain": "services:\n  web:\n    image: nginx\n",
    "flow style": '{"services": {"web": {"image": "nginx"}}}',
    "anchors and merges": (
        "x-base: &base {restart: always}\n"
        "services:\n  a:\n    <<: *base\n    image: a\n  b:\n    <<: *base\n    image: b\n"
    ),
    "services by alias": "x-all: &all {web: {image: nginx}}\nservices: *all\n",
    "services by a merge": "x-all: &all {services: {web: {image: nginx}}}\n<<: *all\n",
    "tags of Compose": "services:\n  web:\n    image: nginx\n    ports: !reset []\n",
    "document markers": "---\nservices:\n  web: {image: nginx}\n...\n",
    "a date that is none": "services:\n  web: {image: nginx, labels: {built: 2026-99-99}}\n",
}
BAD = {
    "empty": ("", "one YAML document"),
    "a comment only": ("# nothing\n", "one YAML document"),
    "a scalar": ("services", "a mapping"),
    "a list": ("- services\n", "a mapping"),
    "two documents": ("services: {a: {}}\n---\nservices: {a: {}}\n", "one YAML document"),
    "no services": ("version: '3'\n", "no `services`"),
    "services further down": ("x:\n  services: {a: {}}\n", "no `services`"),
    "services as a value": ("x: services\n", "no `services`"),
    "services as a list": ("services:\n  - web\n", "must be a mapping"),
    "services without anything": ("services:\n", "must be a mapping"),
    "a syntax error": ("services:\n  web: [\n", "not YAML"),
    "a tab": ("services:\n\tweb: {}\n", "at line 2, column 1"),
    "a control character": ("services: {a: {image: '\x07'}}", "characters that YAML does not allow"),
    "an undefined alias": ("services: *nowhere\n", "without an anchor"),
    "an alias inside its anchor": ("services: &a\n  web: *a\n", "inside its own anchor"),
}


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD)
def test_compose_files_pass_unchanged(text: str):
    assert check_compose(text) == text


@pytest.mark.parametrize(("text", "why"), BAD.values(), ids=BAD)
def test_what_is_no_compose_file_is_refused_with_its_reason(text: str, why: str):
    with pytest.raises(NotACompose, match=why):
        check_compose(text)


@pytest.mark.parametrize(
    "merge", ["[*{0}, *{0}, *{0}, *{0}, *{0}, *{0}, *{0}, *{0}, *{0}, *{0}]", "{{x: *{0}, y: *{0}}}"]
)
def test_alias_bombs_are_refused(merge: str):
    lines = ["l0: &l0 {a: b}"]
    lines += [f"l{n}: &l{n} {merge.format(f'l{n - 1}')}" for n in range(1, 40)]
    with pytest.raises(NotACompose, match="aliases expand"):
        check_compose("\n".join([*lines, "services: {web: {image: nginx}}"]))


@pytest.mark.parametrize("depth", [101, 200_000])
@pytest.mark.parametrize("opening", ["[", "{a: "])
def test_bottomless_nesting_is_refused(depth: int, opening: str):
    with pytest.raises(NotACompose, match="levels deep"):
        check_compose("services: " + opening * depth)


def test_the_largest_honest_file_passes():
    line = "    - [a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a]\n"
    text = "services:\n  web:\n" + line * ((204_800 - 40) // len(line))
    assert check_compose(text) == text


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["services", "volumes", "x-a", "networks"]), VALUES, max_size=4), st.booleans())
def test_agrees_with_the_full_loader(document: dict[str, object], flow: bool):
    text = yaml.safe_dump([document, document], default_flow_style=flow)  # the second one becomes an alias
    text = yaml.safe_dump(yaml.safe_load(text)[1], default_flow_style=flow, allow_unicode=True)
    is_compose = isinstance(yaml.safe_load(text).get("services"), dict)
    try:
        check_compose(text)
    except NotACompose:
        assert not is_compose
    else:
        assert is_compose
