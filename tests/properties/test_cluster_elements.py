"""A patch that puts elements into an object and one that takes them out again leave it as it was; what is not theirs is
never touched."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fake_cluster.patching import json_patch
from stormdrill.cluster.elements import ABSENT, BEFORE, OTHER, OURS, Draft, current, pointer, state
from stormdrill.model.undo import Element

NAMES = st.sampled_from(["replicas", "paused", "a/b", "c~d", "limits", "image", "0"])
LEAVES = st.one_of(st.integers(1, 9), st.just(True), st.text("xyz", min_size=1, max_size=3))
MAPS = st.dictionaries(NAMES, LEAVES, min_size=1, max_size=3)
VALUES = st.one_of(LEAVES, MAPS, st.lists(LEAVES, min_size=1, max_size=3))
TAINTS = st.lists(
    st.fixed_dictionaries(
        {"key": st.sampled_from(["t1", "t2", "t3"]), "effect": st.just("NoExecute"), "value": LEAVES}
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda taint: taint["key"],
)
CONTAINERS = st.lists(
    st.fixed_dictionaries({"name": st.sampled_from(["web", "side", "init"]), "image": LEAVES}),
    min_size=1,
    max_size=3,
    unique_by=lambda item: item["name"],
)
OBJECTS = st.fixed_dictionaries(
    {"metadata": st.just({"name": "o", "uid": "u1", "resourceVersion": "7"}), "spec": st.dictionaries(NAMES, VALUES)},
    optional={"taints": TAINTS, "containers": CONTAINERS},
)
OUR_TAINT = {"key": "stormdrill.dev/lost", "effect": "NoExecute", "value": "r1"}


def elements_for(there: dict[str, Any], name: str, ours: object) -> list[Element]:
    """A value under spec, a taint of ours, and the image of a container that is named."""
    before = there["spec"].get(name, ABSENT)
    written = "" if before is ABSENT else json.dumps(before)
    found = [Element(("spec", name), json.dumps(ours), written)]
    found.append(Element(("taints",), json.dumps(OUR_TAINT), key=("key", "effect")))
    if containers := there.get("containers"):
        named = containers[-1]
        path = ("containers", f"[name={named['name']}]", "image")
        found.append(Element(path, '"of-ours"', json.dumps(named["image"])))
    return found


def drafted(there: dict[str, Any], elements: list[Element], *, back: bool = False) -> dict[str, Any]:
    """What a server makes of the patch; what the draft thinks that it is must be the same."""
    draft = Draft(there)
    for element in reversed(elements) if back else elements:
        if back:
            draft.restore(element)
        else:
            draft.apply(element)
    untouched = copy.deepcopy(there)
    patched = json_patch(copy.deepcopy(there), draft.ops)
    assert there == untouched
    assert patched == draft.there
    return dict(patched)


@given(OBJECTS, NAMES, VALUES)
def test_what_is_put_there_is_seen_as_ours_and_taken_back_the_object_is_as_it_was(
    there: dict[str, Any], name: str, ours: object
) -> None:
    elements = elements_for(there, name, ours)
    unchanged = [element for element in elements if element.ours == element.before]
    changed = drafted(there, elements)
    assert {state(element, there) for element in elements} == {BEFORE}
    assert all(state(element, changed) == OURS for element in elements if element not in unchanged)
    assert drafted(changed, [e for e in elements if e not in unchanged], back=True) == there


@given(OBJECTS, NAMES, VALUES, VALUES, st.randoms(use_true_random=False))
def test_what_others_do_meanwhile_stays_and_where_they_do_it_is_theirs(
    there: dict[str, Any], name: str, ours: object, theirs: object, random: Any
) -> None:
    elements = elements_for(there, name, ours)
    changed = drafted(there, elements)
    changed["taints"].insert(random.randint(0, len(changed["taints"])), {"key": "theirs", "effect": "NoSchedule"})
    changed.setdefault("containers", []).insert(0, {"name": "sidecar", "image": "s"})
    changed["spec"][name] = theirs
    expected = copy.deepcopy(there)
    expected["spec"][name] = theirs
    seen = [element for element in elements if state(element, changed) == OURS]
    if elements[0] in seen:  # the same as ours, by chance
        expected = None
    after = drafted(changed, seen, back=True)
    assert {"key": "theirs", "effect": "NoSchedule"} in after["taints"]
    assert OUR_TAINT not in after["taints"]
    assert [item["name"] for item in after["containers"]] == [
        "sidecar",
        *(i["name"] for i in there.get("containers", [])),
    ]
    assert after["containers"][1:] == there.get("containers", [])
    if expected is not None:
        assert after["spec"] == expected["spec"]


@given(OBJECTS, VALUES, VALUES, VALUES)
def test_a_value_is_one_of_three_things(there: dict[str, Any], before: object, ours: object, now: object) -> None:
    there["spec"]["x"] = now
    said = state(Element(("spec", "x"), json.dumps(ours), json.dumps(before)), there)
    same = {BEFORE: json.dumps(now) == json.dumps(before), OURS: json.dumps(now) == json.dumps(ours)}
    if isinstance(now, dict) or isinstance(before, dict) or isinstance(ours, dict):
        return  # the order of a map's fields says nothing
    assert same.get(said, said == OTHER)
    assert (said == OTHER) == (not any(same.values()))


@given(st.lists(NAMES, min_size=1, max_size=4))
def test_a_pointer_leads_where_the_path_does(path: list[str]) -> None:
    there: dict[str, Any] = {}
    here = there
    for name in path[:-1]:
        here = here.setdefault(name, {})
    here[path[-1]] = "found"
    assert json_patch(there, [{"op": "test", "path": pointer(path), "value": "found"}]) == there
    assert current(Element(tuple(path), ""), there) == "found"
