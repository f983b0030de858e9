"""A map of text whose keys the fault swaps: whatever a person makes of it meanwhile, the undo leaves what they want, or
what was there, and nothing of ours."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from fake_cluster.patching import json_patch
from stormdrill.cluster import naming
from stormdrill.cluster.elements import BEFORE, OURS, Draft, evident, states
from stormdrill.model.undo import Element

Labels = dict[str, str]
NAMES = st.sampled_from(["app", "region", "track", "example.org/tier"])
LABELS = st.dictionaries(NAMES, st.sampled_from(["", "a", "b"]), min_size=1, max_size=4)
OUR_LABELS = {naming.LABEL: "r1", f"{naming.PREFIX}injection": "abcd"}


def service(selector: Labels) -> dict[str, object]:
    metadata = {"name": "web", "uid": "u1", "resourceVersion": "7"}
    return {"metadata": metadata, "spec": {"selector": dict(selector), "type": "ClusterIP"}}


def selector_of(there: dict[str, object]) -> Labels:
    spec = there["spec"]
    assert isinstance(spec, dict)
    return dict(spec["selector"])


def swapped(before: Labels) -> tuple[Element, ...]:
    place = ("spec", "selector")
    put = [Element((*place, name), json.dumps(value)) for name, value in OUR_LABELS.items()]
    return (*put, *(Element((*place, name), "", json.dumps(value)) for name, value in before.items()))


def harmed(before: Labels) -> dict[str, object]:
    there, elements = service(before), swapped(before)
    assert states(elements, there) == [BEFORE] * len(elements)
    draft = Draft(there)
    for element in elements:
        draft.apply(element)
    made: dict[str, object] = json_patch(there, draft.ops)
    assert selector_of(made) == OUR_LABELS
    assert states(elements, made) == [OURS] * len(elements)
    return made


def undone(there: dict[str, object], before: Labels) -> Labels:
    """As the undo does it: back to front, what is ours and shows that it is."""
    elements, draft = swapped(before), Draft(there)
    for element, now in reversed(list(zip(elements, states(elements, there), strict=True))):
        if now == OURS and evident(element, elements):
            draft.restore(element)
    made: dict[str, object] = json_patch(there, draft.ops)
    assert OURS not in states(elements, made)
    return selector_of(made)


@given(LABELS)
def test_untouched_it_is_as_it_was(before: Labels) -> None:
    assert undone(harmed(before), before) == before


@given(LABELS, LABELS)
def test_what_a_manifest_says_stays_and_nothing_is_added_to_it(before: Labels, manifest: Labels) -> None:
    """Applied by the client: beside ours."""
    assert undone(service({**selector_of(harmed(before)), **manifest}), before) == manifest


@given(LABELS, LABELS)
def test_what_it_was_replaced_by_stays(before: Labels, other: Labels) -> None:
    assert undone(service(other), before) == other


@given(LABELS, st.sampled_from(sorted(OUR_LABELS)))
def test_a_selector_is_never_left_without_any_label(before: Labels, name: str) -> None:
    """Who took one of ours away has not said what it should be instead."""
    assert undone(service({name: OUR_LABELS[name]}), before) == before


@given(LABELS, st.sampled_from(sorted(OUR_LABELS)))
def test_who_takes_one_of_ours_away_wants_none_of_it(before: Labels, name: str) -> None:
    """Nothing is put beside what somebody has chosen."""
    left = {key: value for key, value in OUR_LABELS.items() if key != name}
    assert undone(service({**left, "track": "mine"}), before) == {"track": "mine"}
