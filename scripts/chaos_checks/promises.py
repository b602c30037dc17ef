"""What a daemon promised its clients, held against what a daemon on the same folder says now."""

import time

import grpc
from pointsman.v1 import (
    admin_pb2_grpc,
    budget_pb2,
    feedback_pb2,
    feedback_pb2_grpc,
    router_pb2,
    router_pb2_grpc,
    types_pb2,
)

from .load import Ack, Told, error_info

TIMEOUT_S = 60
NANOS_PER_MICRO = 1_000
FEEDBACK = tuple[tuple[str, str], Ack]


def feedback_faults(channel: grpc.Channel, told: Told, acked: list[FEEDBACK]) -> list[str]:
    """Every acknowledged feedback, sent again, is known as what it was acknowledged as; a doubtful one may have changed."""
    given = [
        feedback_pb2.Feedback(decision_id=decision, source=source, score=ack.score) for (decision, source), ack in acked
    ]
    stub = feedback_pb2_grpc.FeedbackServiceStub(channel)
    requests = (feedback_pb2.StreamFeedbackRequest(feedback=one) for one in given)
    faults = []
    for (key, ack), reply in zip(acked, stub.StreamFeedback(requests, timeout=TIMEOUT_S * 10), strict=True):
        again = reply.ack
        as_it_was = again.status == feedback_pb2.FEEDBACK_STATUS_REPEATED and again.sequence == ack.sequence
        changed = again.status != feedback_pb2.FEEDBACK_STATUS_RECORDED and key in told.doubtful
        if reply.HasField("error") or not (as_it_was or changed):
            faults.append(f"feedback {ack.sequence} on {key} is not there: {reply}")
    return faults


def money_faults(channel: grpc.Channel, told: Told, until: float) -> list[str]:
    """The books balance, no budget is overspent, and no client paid what no budget knows; asked while nothing runs."""
    stub = admin_pb2_grpc.AdminServiceStub(channel)
    proof = stub.VerifyBudgets(budget_pb2.VerifyBudgetsRequest(), timeout=TIMEOUT_S)
    faults = [f"imbalance: {one}" for one in proof.imbalances]
    seen: dict[str, int] = {}
    for at, team, plan, nanos in told.costs:
        if at <= until:
            for account in ["global", f"teams/{team}"] + ["free"] * (plan == "free"):
                seen[account] = seen.get(account, 0) + nanos
    budgets = {one.name: one for one in stub.ListBudgets(budget_pb2.ListBudgetsRequest(), timeout=TIMEOUT_S).budgets}
    for account in seen.keys() - budgets.keys():
        budgets[account] = stub.GetBudget(budget_pb2.GetBudgetRequest(name=account), timeout=TIMEOUT_S).budget
    for name, budget in budgets.items():
        gone = budget.spent_usd_micros + budget.unknown_usd_micros
        # Each of the three is rounded up by itself, what is left is rounded down once.
        if budget.left_usd_micros < 0 or gone + budget.held_usd_micros > budget.amount_usd_micros + 3:
            faults.append(f"budget {name} is overspent: {budget}")
        if budget.overrun_usd_micros:
            faults.append(f"budget {name} has an overrun that no call had: {budget}")
        if seen.get(name, 0) > gone * NANOS_PER_MICRO:
            faults.append(f"clients saw {seen[name]} nano-dollars spent of {name}: {budget}")
    return faults


def key_faults(channel: grpc.Channel, keys: list) -> list[str]:
    """A request that was answered under an idempotency key gets the same answer again."""
    stub = router_pb2_grpc.RouterServiceStub(channel)
    faults = []
    for request, decision, _ in keys:
        try:
            again = stub.Route(request, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            info = error_info(error)
            faults.append(f"key of {decision}: {info.reason if info else error}")
            continue
        if not again.replayed or again.decision_id != decision:
            faults.append(f"key of {decision} was routed again as {again.decision_id}")
    return faults


def top_up(channel: grpc.Channel, least_micros: int, step_micros: int) -> None:
    """Raises the main budget where it is short, so that some requests find money and others none."""
    stub = admin_pb2_grpc.AdminServiceStub(channel)
    budget = stub.GetBudget(budget_pb2.GetBudgetRequest(name="global"), timeout=TIMEOUT_S).budget
    if budget.left_usd_micros < least_micros:
        amount = budget.amount_usd_micros + step_micros
        stub.SetBudget(budget_pb2.SetBudgetRequest(name="global", amount_usd_micros=amount), timeout=TIMEOUT_S)


def all_until(told: Told, until: float = float("inf")) -> list[FEEDBACK]:
    """What was acknowledged before, in the order of its sequence."""
    return sorted(((key, ack) for key, ack in told.acked.items() if ack.at <= until), key=lambda one: one[1].sequence)


def now() -> float:
    return time.time()


def serve(channel: grpc.Channel) -> None:
    """Asks for the plainest service: a request and its feedback."""
    spec = types_pb2.RequestSpec(
        prompt="the jury of the clause",
        answer_kind=types_pb2.ANSWER_KIND_LABEL,
        models_allowed=["left"],
        output_tokens_max=32,
    )
    reply = router_pb2_grpc.RouterServiceStub(channel).Route(router_pb2.RouteRequest(request=spec), timeout=TIMEOUT_S)
    given = feedback_pb2.Feedback(decision_id=reply.decision_id, correct=True, source="after")
    feedback_pb2_grpc.FeedbackServiceStub(channel).SubmitFeedback(
        feedback_pb2.SubmitFeedbackRequest(feedback=given), timeout=TIMEOUT_S
    )


def wait_for(holds, limit_s: float) -> float | None:
    """Seconds until it held; none where it did not in time."""
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > limit_s:
            return None
        time.sleep(0.01)
    return time.monotonic() - began
