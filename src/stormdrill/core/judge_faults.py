"""Whether each fault was felt and is gone: exposed, bit, reverted. Seen by witnesses, never assumed."""

from __future__ import annotations

import math
from itertools import pairwise

from msgspec import Struct
from msgspec.structs import replace

from stormdrill.core.case import Case
from stormdrill.core.judge_users import Felt, felt
from stormdrill.core.reach import REACHING, touched
from stormdrill.core.sentences import number, plural
from stormdrill.core.telling import Ending
from stormdrill.core.windows import SHORTEST, Span, all_of
from stormdrill.model import event as ev
from stormdrill.model.mechanism import BLOCKED, Segment, Sever, Tell, Toxic
from stormdrill.model.plan import Injection
from stormdrill.model.verdict import FaultVerdict

LEAST_SERVED = 20
"""Requests in the baseline, of all instances of one fault together."""
LEAST_BYTES = 2000.0
"""Through all hops of one fault together: 20 of the smallest requests with their answers."""
SERVED = "served"
HOP_BYTES = "hop_bytes"
"""Readings of the fault proxy's own counters, both ways; their instance is the hop."""
NOT_THE_SYSTEM = ("generator", "beside")
"""Roles whose end says nothing of the system: the generator's is told by its records, what stands beside it is ours."""
ENDS_INSTANCES = ("crash",)
_LIVES = (ev.ProcessSpawned, ev.ProcessExited, ev.ContainerStarted, ev.ContainerEvent)


class Exposure(Struct, frozen=True):
    """What the instances of one fault had served before it, or what the hops that it harms had carried."""

    enough: bool
    detail: str
    events: tuple[int, ...]


class Spoilt(Struct, frozen=True):
    """Why what was seen of a fault doesn't count."""

    by: ev.Recorded
    why: str


def judge_faults(case: Case) -> tuple[FaultVerdict, ...]:
    """One verdict an injection that was planned, in the plan's order."""
    exposures: dict[int, Exposure] = {}
    users: dict[int, Felt] = {}
    for injection in case.plan.injections:
        if injection.use not in exposures:
            group = [item for item in case.plan.injections if item.use == injection.use]
            exposures[injection.use] = _exposure(case, group)
            users[injection.use] = felt(case, group)
    found = ((_judge(case, item, exposures[item.use]), users[item.use]) for item in case.plan.injections)
    return tuple(replace(fault, users_ms=seen.at_ms, users=seen.sentence) for fault, seen in found)


def _exposure(case: Case, group: list[Injection]) -> Exposure:
    baseline = case.spans.get("baseline")
    if baseline is None:
        return Exposure(False, "there was no baseline to show that it served anybody", ())
    if (carried := _carried(case, group, baseline)) is not None:
        return carried
    served, seqs = 0.0, list(baseline.events)
    unknown = []
    for instance in sorted({name for item in group for name in _harmed(item)}):
        counted = _counted(case, instance, baseline)
        if counted is not None:
            served += counted[0]
            seqs += counted[1]
        elif (share := _entry_share(case, instance, baseline)) is not None:
            served += share
        else:
            unknown.append(instance)
    what = f"{served:,.0f} requests served in the baseline"
    if served < LEAST_SERVED:
        what = f"only {what}, {LEAST_SERVED} show that it mattered"
        if unknown:
            what += f"; nothing counts those of {', '.join(unknown)}"
    return Exposure(served >= LEAST_SERVED, what, tuple(sorted(set(seqs))))


def _carried(case: Case, group: list[Injection], baseline: Span) -> Exposure | None:
    """What is done to hops matters where they carried something. None for other faults, and where nobody counted."""
    hops = sorted({hop for item in group if isinstance(item.how, Toxic) for hop in item.how.hops})
    if not hops or not all(isinstance(item.how, Toxic) for item in group):
        return None
    counts = [counted for hop in hops if (counted := _counted(case, hop, baseline, HOP_BYTES)) is not None]
    if not counts:
        return None
    total = sum(count for count, _ in counts)
    what = f"{total / 1000:,.1f} kB passed {plural(len(hops), 'hop')} in the baseline"
    if total < LEAST_BYTES:
        what = f"only {what}, {LEAST_BYTES / 1000:g} kB show that it mattered"
    seqs = {*baseline.events, *(seq for _, found in counts for seq in found)}
    return Exposure(total >= LEAST_BYTES, what, tuple(sorted(seqs)))


def _counted(case: Case, instance: str, baseline: Span, metric: str = SERVED) -> tuple[float, list[int]] | None:
    """By a counter, from the baseline's start to its end. One that fell was started anew."""
    series: dict[tuple[tuple[str, str], ...], list[tuple[float, int, float]]] = {}
    for recorded, reading in all_of(case.events, ev.Reading):
        if reading.metric == metric and reading.instance == instance and reading.value is not None:
            key = tuple(sorted(reading.labels.items()))
            series.setdefault(key, []).append((recorded.mono_ms, recorded.seq, reading.value))
    total, seqs = 0.0, []
    for points in series.values():
        points.sort()
        before = [point for point in points if point[0] <= baseline.start_ms]
        inside = [point for point in points if baseline.start_ms < point[0] <= baseline.end_ms]
        chosen = before[-1:] + inside
        for earlier, later in pairwise(chosen):
            total += later[2] - earlier[2] if later[2] >= earlier[2] else later[2]
        seqs += [point[1] for point in (*chosen[:1], *chosen[-1:])]
    return (total, seqs) if series else None


def _entry_share(case: Case, instance: str, baseline: Span) -> float | None:
    """Load alternates over the entry's instances: each answered its part of what was answered at all."""
    entries = [item.name for item in case.plan.system.instances if item.service == case.plan.system.entry]
    if instance not in entries or not len(case.requests):
        return None
    requests = case.requests.between(baseline.start_ms, baseline.end_ms)
    return float(requests.acknowledged.sum()) / len(entries)


def _judge(case: Case, injection: Injection, exposure: Exposure) -> FaultVerdict:
    def mine(kind: type[ev.InjectStarted | ev.Injected | ev.EffectObserved | ev.RevertVerified | ev.Reverted]):  # type: ignore[no-untyped-def]
        return [item for item in all_of(case.events, kind) if item[1].injection == injection.id]

    started, calls = mine(ev.InjectStarted), mine(ev.Injected)
    effects = [item for item in mine(ev.EffectObserved) if item[1].bit]
    spoilt = _spoilt(case, injection, started[0][0]) if started else None
    if spoilt is not None:
        effects = []
    looks = mine(ev.RevertVerified)
    gone = bool(looks) and looks[-1][1].gone
    ended = None if gone else _ended_with_the_system(case, injection.id)
    reverted = gone or ended is not None or not started
    details = [] if exposure.enough else [exposure.detail]
    if not started:
        details.append("it was never injected")
    elif spoilt is not None:
        details.append(spoilt.why)
    elif not effects and _got_through(case, injection):
        details.append("it was tried, and nothing blocked it")
    elif not effects and (shared := _felt_by_others(case, injection)):
        details.append(shared)
    elif not effects:
        outcome = calls[-1][1] if calls else None
        why = f" (the call {outcome.outcome}: {outcome.detail})" if outcome and outcome.outcome != "done" else ""
        details.append(f"nobody saw it bite{why}")
    if started and ended is not None:
        details.append("it ended with the system, which was torn down")
    elif started and not looks:
        details.append("nobody looked whether it is gone")
    elif started and not gone:
        details.append(f"it is not gone: {looks[-1][1].witness} saw {looks[-1][1].detail}")
    if started and effects and gone:
        details.append(f"{effects[0][1].witness} saw {effects[0][1].detail}, then {looks[-1][1].detail}")
    hands = [hand for hand in case.hands if hand.injection.id == injection.id]
    details += [*_came_to(case, injection), *(f"{hand.sentence} ({hand.detail})" for hand in hands)]
    fed = [item for item in case.endings if item[1].out_of_memory and _feeds(case, injection, *item)]
    kills = [item for item in fed if item[1].ended] or fed  # a death says more than that something was killed there
    details += dict.fromkeys(ending.sentence for _, ending in kills)
    events = {*(recorded.seq for recorded, _ in kills), *(hand.seq for hand in hands)}
    events |= {*exposure.events, *(r.seq for r, _ in [*started[:1], *calls[-1:], *effects[:1], *looks[-1:]])}
    events |= {recorded.seq for recorded in (spoilt.by if spoilt else None, ended) if recorded is not None}
    return FaultVerdict(
        name=injection.fault,
        target=injection.instance,
        exposed=exposure.enough,
        bit=bitten(case, injection),
        effect_ms=round(effects[0][1].after_ms, 3) if effects else None,
        reverted=reverted,
        revert_ms=round(after_ms, 3) if gone and (after_ms := looks[-1][1].after_ms) is not None else None,
        detail="; ".join(details),
        events=tuple(sorted(events)),
    )


def _came_to(case: Case, injection: Injection) -> list[str]:
    looks = [event for _, event in all_of(case.events, ev.RevertVerified) if event.injection == injection.id]
    return [event.came_to for event in looks[-1:] if event.came_to]


def bitten(case: Case, injection: Injection) -> bool:
    """Whether somebody but the call saw it bite, and that counts."""
    calls = [recorded for recorded, event in all_of(case.events, ev.InjectStarted) if event.injection == injection.id]
    if not calls or _spoilt(case, injection, calls[0]) is not None:
        return False
    seen = any(event.bit and event.injection == injection.id for _, event in all_of(case.events, ev.EffectObserved))
    return seen or bool(_felt_by_others(case, injection))


def let_through(case: Case) -> dict[tuple[str, str], str]:
    """Fault and instance → a sentence on what policy forbids and what passed all the same: that is what a segment is
    tried for."""
    found = {}
    for injection in case.plan.injections:
        if isinstance(injection.how, Segment) and _got_through(case, injection):
            why = f"{injection.fault}: {injection.instance} reached {injection.how.to}, which is forbidden"
            found[injection.fault, injection.instance] = why
    return found


def _got_through(case: Case, injection: Injection) -> bool:
    return isinstance(injection.how, Segment) and any(
        reading.metric == BLOCKED and reading.instance == injection.instance and reading.value == 0
        for _, reading in all_of(case.events, ev.Reading)
    )


def _felt_by_others(case: Case, injection: Injection) -> str:
    """Of one fault on many hops, some may be idle while it lasts: it bit when others of it were seen to. Else empty."""
    others = {item.id for item in case.plan.injections if item.use == injection.use and isinstance(item.how, Toxic)}
    felt_there = any(e.bit and e.injection in others for _, e in all_of(case.events, ev.EffectObserved))
    calls = [e.outcome for _, e in all_of(case.events, ev.Injected) if e.injection == injection.id]
    if not isinstance(injection.how, Toxic) or not felt_there or calls[-1:] != ["done"]:
        return ""
    return f"nothing passed the hops of {injection.instance} meanwhile; on others of the same fault it bit"


def _spoilt(case: Case, injection: Injection, call: ev.Recorded) -> Spoilt | None:
    if (dead := _dead_before(case, injection.instance, call)) is not None:
        return Spoilt(dead, f"{injection.instance} was not running when it was injected")
    if (anew := _joined_anew(case, injection, call)) is not None:
        why = f"{injection.instance} was started again meanwhile, with a network of its own: its cut was over by then"
        return Spoilt(anew, why)
    return None


def _joined_anew(case: Case, injection: Injection, call: ev.Recorded) -> ev.Recorded | None:
    """The start that ended a cut by packet rules before its revert: they are gone with the network that it had."""
    if not isinstance(injection.how, Sever) or not injection.how.peers:
        return None
    reverts = [r.mono_ms for r, e in all_of(case.events, ev.RevertStarted) if e.injection == injection.id]
    until_ms = min((at_ms for at_ms in reverts if at_ms >= call.mono_ms), default=math.inf)
    starts = all_of(case.events, ev.ContainerStarted)
    inside = [r for r, e in starts if e.instance == injection.instance and call.mono_ms <= r.mono_ms < until_ms]
    return inside[0] if inside else None


def _dead_before(case: Case, instance: str, call: ev.Recorded) -> ev.Recorded | None:
    """The end of what the call was meant to hit, when that had ended before: what was seen then is not its doing."""
    last: ev.Recorded | None = None
    pid: int | None = None
    for recorded in sorted(case.events, key=lambda item: (item.mono_ms, item.seq)):
        event = recorded.event
        if recorded.mono_ms >= call.mono_ms:
            break
        if not isinstance(event, _LIVES) or event.instance != instance:
            continue
        if isinstance(event, ev.ProcessSpawned | ev.ContainerStarted):
            pid, last = event.pid, None
        elif isinstance(event, ev.ProcessExited):
            last = recorded if pid in (None, event.pid) else last
        elif event.action in ("die", "destroy"):
            last = recorded
        elif event.action == "start":
            last = None
    return last


def _ended_with_the_system(case: Case, injection: str) -> ev.Recorded | None:
    """The tear-down that ended what a revert was about, in a run that was stopped and had no time to look.

    Only where nobody has seen since the last revert that it is *not* gone, and where nothing of the system was left.
    """
    stopped = bool(all_of(case.events, ev.AbortRequested))
    stopped |= any(event.status in ("aborted", "failed") for _, event in all_of(case.events, ev.RunEnded))
    reverts = [item for item in all_of(case.events, ev.Reverted) if item[1].injection == injection]
    if not stopped or not reverts or reverts[-1][1].outcome not in ("done", "superseded"):
        return None
    at = reverts[-1][0].seq
    if any(r.seq > at and e.injection == injection for r, e in all_of(case.events, ev.RevertVerified)):
        return None
    downs = [(recorded, event) for recorded, event in all_of(case.events, ev.TornDown) if recorded.seq > at]
    return downs[-1][0] if downs and not downs[-1][1].left else None


def ended_by_itself(case: Case) -> tuple[str, ...]:
    """Sentences on what befell the system from the baseline on, and not by what the plan did to it."""
    baseline = case.spans.get("baseline")
    if baseline is None:
        return ()
    roles = {(event.instance, event.pid): event.role for _, event in all_of(case.events, ev.ProcessSpawned)}
    found = []
    for recorded, ending in case.endings:
        event = recorded.event
        role = roles.get((event.instance, event.pid), "system") if isinstance(event, ev.ProcessExited) else "system"
        if role in NOT_THE_SYSTEM or recorded.mono_ms < baseline.start_ms or _explained(case, recorded, ending):
            continue
        found.append(f"{ending.sentence}, and no fault of the plan explains it")
    return tuple(dict.fromkeys(found))


def ended_early(case: Case) -> tuple[str, ...]:
    """Sentences on harm that was lifted before its time, since its call did not come through, or its expiry came: the
    others of the same fault went on, and so did the phase."""
    lifted: dict[str, float] = {}
    for recorded, event in all_of(case.events, ev.RevertStarted):
        lifted.setdefault(event.injection, recorded.mono_ms)
    found = []
    for item in case.plan.injections:
        for called_ms, _ in case.in_force([item]):
            start_ms = _started_up_ms(case, item) or called_ms
            lasted_s = (lifted.get(item.id, math.inf) - start_ms) / 1000
            if lasted_s < SHORTEST * item.for_s:
                said = f"{number(lasted_s)} of {number(item.for_s)} s"
                found.append(f"{item.fault} on {item.instance} lasted {said}")
    return tuple(found)


def _started_up_ms(case: Case, injection: Injection) -> float:
    """When what does it had been started and its time began; 0 for what is in force with its call."""
    answered = [recorded.mono_ms for recorded, e in all_of(case.events, ev.Injected) if e.injection == injection.id]
    return answered[0] if injection.starts_up and answered else 0.0


def _explained(case: Case, recorded: ev.Recorded, ending: Ending) -> bool:
    """A crash explains that its instance ends, what takes memory that the kernel kills for it."""
    if ending.out_of_memory and any(_feeds(case, item, recorded, ending) for item in case.plan.injections):
        return True
    crashes = [
        item for item in case.plan.injections if item.instance == ending.instance and item.mechanism in ENDS_INSTANCES
    ]
    return any(start <= recorded.mono_ms <= end for start, end in case.in_force(crashes))


def _harmed(injection: Injection) -> tuple[str, ...]:
    """Who is to have been in use: who runs a release, not who was asked to roll it out."""
    if isinstance(injection.how, REACHING) or (isinstance(injection.how, Toxic) and injection.how.service):
        return tuple(sorted(touched(injection)))
    return (isinstance(injection.how, Tell) and injection.how.reaches) or (injection.instance,)


def _feeds(case: Case, injection: Injection, recorded: ev.Recorded, ending: Ending) -> bool:
    """Whether what takes memory was in force on whom the kernel killed: pressure, or a release that it runs."""
    releases = isinstance(injection.how, Tell) and injection.how.reaches
    if ending.instance not in (releases or ((injection.instance,) if injection.mechanism == "pressure" else ())):
        return False
    return any(start <= recorded.mono_ms <= end for start, end in case.in_force([injection]))


def not_reverted(case: Case, faults: tuple[FaultVerdict, ...]) -> tuple[str, ...]:
    """What could not be shown to be undone: faults, a runbook's actions, processes that would not end."""
    left = [f"{fault.name} on {fault.target}" for fault in faults if not fault.reverted]
    planned = {item.id for item in case.plan.injections}
    outcomes = {e.injection: e.outcome for _, e in all_of(case.events, ev.Reverted)}
    seen_gone = {e.injection: e.gone for _, e in all_of(case.events, ev.RevertVerified)}
    for name in dict.fromkeys(e.injection for _, e in all_of(case.events, ev.Armed)):
        undone = seen_gone.get(name, outcomes.get(name) in ("done", "superseded"))
        if name not in planned and not undone:
            left.append(name)
    ended = all_of(case.events, ev.TornDown)
    if ended and ended[-1][1].left:
        left.append(f"{plural(len(ended[-1][1].left), 'process')} that would not end")
    return tuple(left)
