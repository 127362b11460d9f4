import pytest

from service.client.submission import InputError, links_of, metadata_of

ACTIONS = {
    "GITHUB_ACTIONS": "true",
    "GITHUB_SERVER_URL": "https://github.com",
    "GITHUB_REPOSITORY": "acme/agent",
    "GITHUB_SHA": "4f6c2a1d",
    "GITHUB_RUN_ID": "1234567",
}
COMMIT, RUN = "https://github.com/acme/agent/commit/4f6c2a1d", "https://github.com/acme/agent/actions/runs/1234567"


def test_github_actions_tells_commit_pull_request_and_run():
    assert links_of([], {**ACTIONS, "GITHUB_REF": "refs/tags/v1"}) == [COMMIT, RUN]
    pull = "https://github.com/acme/agent/pull/7"
    assert links_of([], {**ACTIONS, "GITHUB_REF": "refs/pull/7/merge"}) == [COMMIT, pull, RUN]


def test_what_is_given_counts():
    assert links_of(["https://ci.example/1"], ACTIONS) == ["https://ci.example/1"]


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {**ACTIONS, "GITHUB_ACTIONS": ""},
        {**ACTIONS, "GITHUB_SERVER_URL": "http://github.example"},
        *[{name: value for name, value in ACTIONS.items() if name != left_out} for left_out in ACTIONS],
    ],
)
def test_without_all_of_it_there_are_no_links(environment: dict[str, str]):
    assert links_of([], environment) == []


def test_metadata_is_split_at_the_first_sign():
    assert metadata_of(["a=b=c", "empty="]) == {"a": "b=c", "empty": ""}


@pytest.mark.parametrize("given", ["a", "=b", ""])
def test_metadata_of_another_form_is_a_usage_error(given: str):
    with pytest.raises(InputError, match="name=value"):
        metadata_of(["fine=1", given])
