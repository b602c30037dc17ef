"""Drives a running daemon from Python as any foreign client would: `python check.py HOST:PORT`.

Needs the stubs (see stubs.py) on PYTHONPATH. Ends with 0 and one line for each thing that held, else with a traceback.
"""

import sys

import grpc
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status
from pointsman.v1 import (
    feedback_pb2,
    feedback_pb2_grpc,
    router_pb2,
    router_pb2_grpc,
    stats_pb2,
    stats_pb2_grpc,
    types_pb2,
)

TIMEOUT_S = 30
SERVICES = ["AdminService", "FeedbackService", "PolicyService", "RouterService", "StatsService"]


def main() -> None:
    with grpc.insecure_channel(sys.argv[1]) as channel:
        health(channel)
        reflection(channel)
        decision_id = route(channel)
        feedback(channel, decision_id)
        stats(channel)
        bad_input(channel, decision_id)


def health(channel: grpc.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    for service in ["", "pointsman.v1.RouterService"]:
        reply = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT_S, wait_for_ready=True)
        expect(reply.status, health_pb2.HealthCheckResponse.SERVING)
    print("health: serving")


def reflection(channel: grpc.Channel) -> None:
    known = ProtoReflectionDescriptorDatabase(channel)
    names = set(known.get_services())
    for service in SERVICES:
        expect(f"pointsman.v1.{service}" in names, True)
    file = known.FindFileContainingSymbol("pointsman.v1.RouterService")
    expect(file.package, "pointsman.v1")
    print(f"reflection: {len(names)} services")


def route(channel: grpc.Channel) -> str:
    spec = types_pb2.RequestSpec(
        prompt="A train leaves at nine and arrives at noon. How many hours does it travel?",
        answer_kind=types_pb2.ANSWER_KIND_LABEL,
        tags={"tenant": "python"},
    )
    request = router_pb2.RouteRequest(request=spec, explain=True)
    reply = router_pb2_grpc.RouterServiceStub(channel).Route(request, timeout=TIMEOUT_S)
    expect(reply.answer.value != "", True)
    expect(0 <= reply.answer.confidence <= 1, True)
    expect(len(reply.decision_id), 36)
    expect(reply.decision.decision_id, reply.decision_id)
    chosen = [candidate.model for candidate in reply.decision.candidates if candidate.chosen]
    expect({attempt.model for attempt in reply.attempts}, set(chosen))
    eligible = [candidate for candidate in reply.decision.candidates if candidate.eligible]
    expect(abs(sum(candidate.pick_propensity for candidate in eligible) - 1) < 1e-9, True)
    expect(reply.decision.why != "", True)
    print(f"route: {reply.answer.value} by {', '.join(chosen)}")
    return reply.decision_id


def feedback(channel: grpc.Channel, decision_id: str) -> None:
    stub = feedback_pb2_grpc.FeedbackServiceStub(channel)
    for correct, status in [
        (True, feedback_pb2.FEEDBACK_STATUS_RECORDED),
        (True, feedback_pb2.FEEDBACK_STATUS_REPEATED),
        (False, feedback_pb2.FEEDBACK_STATUS_CORRECTED),
    ]:
        given = feedback_pb2.Feedback(decision_id=decision_id, correct=correct, source="python")
        reply = stub.SubmitFeedback(feedback_pb2.SubmitFeedbackRequest(feedback=given), timeout=TIMEOUT_S)
        expect(reply.ack.status, status)
    print("feedback: recorded, repeated, corrected")


def stats(channel: grpc.Channel) -> None:
    stub = stats_pb2_grpc.StatsServiceStub(channel)
    reply = stub.ListModelStats(stats_pb2.ListModelStatsRequest(), timeout=TIMEOUT_S)
    expect(reply.decisions >= 1, True)
    expect(sum(row.calls for row in reply.stats) >= 1, True)
    expect(sum(row.feedback for row in reply.stats) >= 1, True)
    print(f"stats: {len(reply.stats)} models, {reply.decisions} decisions")


def bad_input(channel: grpc.Channel, decision_id: str) -> None:
    router = router_pb2_grpc.RouterServiceStub(channel)
    nan = float("nan")

    def ask(**fields: object) -> object:
        return router.Route(router_pb2.RouteRequest(request=types_pb2.RequestSpec(**fields)), timeout=TIMEOUT_S)

    def judge(**fields: object) -> object:
        stub = feedback_pb2_grpc.FeedbackServiceStub(channel)
        return stub.SubmitFeedback(
            feedback_pb2.SubmitFeedbackRequest(feedback=feedback_pb2.Feedback(**fields)), timeout=TIMEOUT_S
        )

    refused(["prompt"], lambda: ask(prompt=""))
    refused(["models_allowed"], lambda: ask(prompt="x", models_allowed=["no such model"]))
    refused(["embedding"], lambda: ask(prompt="x", embedding=[1.0, nan]))
    refused(["score"], lambda: judge(decision_id=decision_id, score=1.5))
    # All faults at once.
    refused(["quality_threshold", "max_cost_usd_micros"], lambda: ask(prompt="x", quality_threshold=2, max_cost_usd_micros=-1))
    unknown = "00000000-0000-7000-8000-000000000000"
    expect(ended(lambda: judge(decision_id=unknown, correct=True)).code(), grpc.StatusCode.NOT_FOUND)
    print("bad input: refused with the fields' names")


def refused(fields: list[str], call: object) -> None:
    """The call ends with INVALID_ARGUMENT, and each of the fields is named in its BadRequest details."""
    error = ended(call)
    expect(error.code(), grpc.StatusCode.INVALID_ARGUMENT)
    named = []
    for detail in rpc_status.from_call(error).details:
        bad = error_details_pb2.BadRequest()
        if detail.Unpack(bad):
            named += [violation.field for violation in bad.field_violations]
    for field in fields:
        expect(any(field in name.replace("[", ".").split(".") for name in named), True, f"{field} in {named}")


def ended(call: object) -> grpc.RpcError:
    try:
        reply = call()
    except grpc.RpcError as error:
        return error
    raise AssertionError(f"was not refused: {reply}")


def expect(found: object, wanted: object, what: str = "") -> None:
    if found != wanted:
        raise AssertionError(f"{what or 'found'}: {found!r}, wanted {wanted!r}")


if __name__ == "__main__":
    main()
