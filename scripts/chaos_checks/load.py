"""Clients that route, decide, report, judge and go away, and a memory of what they were told.

Only what was told counts: a reply that came, an acknowledgement that came. What was on its way when the daemon ended may be
there or not; an answer that was corrected without hearing back may be the old or the new one.
"""

import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from pointsman.v1 import feedback_pb2, feedback_pb2_grpc, router_pb2, router_pb2_grpc, types_pb2

CLIENTS = 8
CALL_TIMEOUT_S = 20
WORDS = ["contract", "clause", "jury", "pointer", "mutex", "array"]
POOLS = [["left", "right"], ["left", "right"], ["left", "flaky"], ["right", "brick"], ["left", "snail"], []]
SOURCES = ["user", "judge"]
# Mostly plain verdicts: a training learns from those.
SCORES = [0.0, 1.0, 0.0, 1.0, 0.5]
# Refusals that are right under this load: no money, models that fail, a daemon that was told to end.
USUAL = frozenset({"DRAINING", "BUDGET_EXHAUSTED", "MODELS_FAILED", "NO_MODEL", "NO_USABLE_ANSWER"})


@dataclass(frozen=True)
class Ack:
    """An acknowledged feedback, and when the client had heard of it."""

    score: float
    sequence: int
    at: float


@dataclass
class Told:
    """What clients were told, over all daemons of one state folder."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    # By decision and source.
    acked: dict[tuple[str, str], Ack] = field(default_factory=dict)
    # Those that somebody tried to correct since, without hearing back.
    doubtful: set[tuple[str, str]] = field(default_factory=set)
    # When, team, plan, nano-dollars.
    costs: list[tuple[float, str, str, int]] = field(default_factory=list)
    # By idempotency key: what was asked, which decision it became, and when that was heard.
    keyed: dict[str, tuple[router_pb2.RouteRequest, str, float]] = field(default_factory=dict)
    refusals: Counter = field(default_factory=Counter)
    cancelled: int = 0
    routed: int = 0
    reported: int = 0
    faults: list[str] = field(default_factory=list)


class Load:
    """Clients of one daemon, until it is gone or they are told to stop."""

    def __init__(self, channel: grpc.Channel, told: Told, rng: random.Random, teams: list[str], usual=USUAL) -> None:
        self.told, self.teams, self.usual = told, teams, usual
        self.stopping = threading.Event()
        self.router = router_pb2_grpc.RouterServiceStub(channel)
        self.feedback = feedback_pb2_grpc.FeedbackServiceStub(channel)
        seeds = [rng.getrandbits(64) for _ in range(CLIENTS)]
        self.threads = [threading.Thread(target=self._client, args=(random.Random(seed),)) for seed in seeds]
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        """Ends the clients, each after what it is doing."""
        self.stopping.set()
        self.join()

    def join(self) -> None:
        """Waits for clients whose daemon is gone."""
        for thread in self.threads:
            thread.join()

    def _client(self, rng: random.Random) -> None:
        acts = [(self._route, 8), (self._go_away, 2), (self._report, 3), (self._keyed, 2), (self._correct, 2)]
        doing, weights = zip(*acts)
        while not self.stopping.is_set():
            try:
                rng.choices(doing, weights)[0](rng)
            except grpc.RpcError as error:
                if self._is_end(error):
                    return
            except Exception as error:
                with self.told.lock:
                    self.told.faults.append(f"a client failed: {error!r}")
                return

    def _is_end(self, error: grpc.RpcError) -> bool:
        """Whether the daemon is gone; a refusal is counted, and a fault where it is none of the usual."""
        if error.code() == grpc.StatusCode.CANCELLED:
            with self.told.lock:
                self.told.cancelled += 1
            return False
        info = error_info(error)
        if info is None and error.code() == grpc.StatusCode.UNAVAILABLE:
            return True
        reason = info.reason if info else f"untyped {error.code().name}"
        with self.told.lock:
            self.told.refusals[reason] += 1
            if reason not in self.usual:
                self.told.faults.append(f"{reason}: {error.details()}")
        return reason == "DRAINING"

    def _spec(self, rng: random.Random) -> types_pb2.RequestSpec:
        return types_pb2.RequestSpec(
            prompt=f"the {rng.choice(WORDS)} of {rng.choice(WORDS)} {rng.randrange(10_000)}",
            answer_kind=types_pb2.ANSWER_KIND_LABEL,
            labels=["A", "B"],
            models_allowed=rng.choice(POOLS),
            calls_max=rng.choice([1, 1, 2]),
            output_tokens_max=32,
            tags={"team": rng.choice(self.teams), "plan": rng.choice(["free", "paid", "paid", "paid"])},
        )

    def _paid(self, spec: types_pb2.RequestSpec, nanos: int) -> None:
        with self.told.lock:
            self.told.costs.append((time.time(), spec.tags["team"], spec.tags["plan"], nanos))

    def _routed(self, spec: types_pb2.RequestSpec, call) -> router_pb2.RouteResponse:
        try:
            reply = call()
        except grpc.RpcError as error:
            info = error_info(error)
            if info and "cost_usd_nanos" in info.metadata:
                self._paid(spec, int(info.metadata["cost_usd_nanos"]))
            raise
        if not reply.replayed:
            self._paid(spec, reply.cost_usd_nanos)
        with self.told.lock:
            self.told.routed += 1
        return reply

    def _route(self, rng: random.Random) -> None:
        spec = self._spec(rng)
        request = router_pb2.RouteRequest(request=spec)
        reply = self._routed(spec, lambda: self.router.Route(request, timeout=CALL_TIMEOUT_S))
        if rng.random() < 0.8:
            self._judge(rng, reply.decision_id, rng.choice(SOURCES))

    def _go_away(self, rng: random.Random) -> None:
        spec = self._spec(rng)
        call = self.router.Route.future(router_pb2.RouteRequest(request=spec), timeout=CALL_TIMEOUT_S)
        time.sleep(rng.uniform(0, 0.03))
        call.cancel()
        self._routed(spec, lambda: _result(call))

    def _report(self, rng: random.Random) -> None:
        spec = self._spec(rng)
        decided = self.router.Decide(router_pb2.DecideRequest(request=spec), timeout=CALL_TIMEOUT_S)
        if rng.random() < 0.1:
            # Never reported: its hold becomes unknown.
            return
        outcomes = [
            router_pb2.ReportedOutcome(
                model=call.model,
                status=types_pb2.ATTEMPT_STATUS_OK,
                answer="A",
                tokens_in=10,
                tokens_out=rng.randrange(32),
            )
            for call in decided.calls
        ]
        # At once, or in two parts of which the last may be empty.
        cut = rng.choice([0, 1])
        for part, final in [(outcomes[:cut], False), (outcomes[cut:], True)][1 - cut :]:
            report = router_pb2.ReportOutcomesRequest(decision_id=decided.decision_id, outcomes=part, final=final)
            reply = self.router.ReportOutcomes(report, timeout=CALL_TIMEOUT_S)
        if reply.settled:
            self._paid(spec, reply.cost_usd_nanos)
        with self.told.lock:
            self.told.reported += 1
        self._judge(rng, decided.decision_id, rng.choice(SOURCES))

    def _keyed(self, rng: random.Random) -> None:
        spec = self._spec(rng)
        key = f"{rng.getrandbits(64):016x}"
        request = router_pb2.RouteRequest(request=spec, idempotency_key=key)
        reply = self._routed(spec, lambda: self.router.Route(request, timeout=CALL_TIMEOUT_S))
        with self.told.lock:
            self.told.keyed[key] = (request, reply.decision_id, time.time())
        if rng.random() < 0.2:
            again = self.router.Route(request, timeout=CALL_TIMEOUT_S)
            if (again.decision_id, again.replayed) != (reply.decision_id, True):
                with self.told.lock:
                    self.told.faults.append(f"a repeated key became decision {again.decision_id}, not {reply.decision_id}")

    def _correct(self, rng: random.Random) -> None:
        """Late feedback, often on a decision that an earlier daemon made."""
        with self.told.lock:
            known = list(self.told.acked)[-2_000:]
        if known:
            self._judge(rng, *rng.choice(known))

    def _judge(self, rng: random.Random, decision: str, source: str) -> None:
        key, told = (decision, source), self.told
        score = rng.choice(SCORES)
        given = feedback_pb2.Feedback(decision_id=decision, score=score, source=source)
        with told.lock:
            if key in told.doubtful:
                return
            told.doubtful.add(key)
        reply = self.feedback.SubmitFeedback(feedback_pb2.SubmitFeedbackRequest(feedback=given), timeout=CALL_TIMEOUT_S)
        with told.lock:
            told.acked[key] = Ack(score, reply.ack.sequence, time.time())
            told.doubtful.discard(key)


def _result(call: grpc.Future):
    try:
        return call.result()
    except grpc.FutureCancelledError:
        raise Cancelled from None


class Cancelled(grpc.RpcError):
    """A call that its client gave up."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.CANCELLED


def error_info(error: grpc.RpcError) -> error_details_pb2.ErrorInfo | None:
    """The typed reason of a refusal; none where the daemon did not say it."""
    if isinstance(error, Cancelled):
        return None
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return info
    return None
