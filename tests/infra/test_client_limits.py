from infra.client_limits import AdaptiveLimit, Circuit, Throughput


def test_a_limit_grows_by_one_in_a_round_of_answers_and_not_beyond_the_endpoints_own() -> None:
    limit = AdaptiveLimit(start=8, most=10)
    for _ in range(8):
        limit.grow(in_flight=8)
    assert limit.calls == 8
    limit.grow(in_flight=8)
    assert limit.calls == 9
    for _ in range(100):
        limit.grow(in_flight=8)
    assert limit.calls == 10


def test_a_limit_that_is_not_used_does_not_grow() -> None:
    limit = AdaptiveLimit(start=8, most=64)
    for _ in range(100):
        limit.grow(in_flight=2)
    assert limit.calls == 8


def test_a_burst_of_refusals_halves_a_limit_once() -> None:
    limit = AdaptiveLimit(start=64, most=64)
    for _ in range(30):
        limit.shrink(sent_at=1.0, now=2.0)
    assert limit.calls == 32
    limit.shrink(sent_at=3.0, now=4.0)
    assert limit.calls == 16
    for i in range(20):
        limit.shrink(sent_at=5.0 + i, now=5.5 + i)
    assert limit.calls == 1


def opened(failures: int = 3) -> Circuit:
    circuit = Circuit(failures, rest=1.0, most=4.0)
    for _ in range(failures):
        assert circuit.state == "closed"
        circuit.failed(now=10.0, was_try=False)
    return circuit


def test_a_circuit_opens_after_failures_in_a_row() -> None:
    circuit = opened()
    assert circuit.state == "open"
    assert not circuit.lets_pass(10.9)
    circuit = Circuit(3, rest=1.0, most=4.0)
    for _ in range(9):
        circuit.failed(now=10.0, was_try=False)
        circuit.answered()
    assert circuit.state == "closed"


def test_after_its_rest_one_call_tries_and_each_further_rest_is_doubled() -> None:
    circuit, now = opened(), 11.0
    for rest in (2.0, 4.0, 4.0):
        assert circuit.lets_pass(now)
        circuit.sent()
        assert circuit.state == "half-open"
        assert not circuit.lets_pass(now)
        circuit.failed(now, was_try=True)
        assert circuit.opens_at == now + rest
        now += rest
    circuit.sent()
    circuit.answered()
    assert circuit.state == "closed"
    for _ in range(3):
        circuit.failed(now, was_try=False)
    assert circuit.opens_at == now + 1.0  # the answer has made up for the past


def test_failures_of_calls_sent_before_do_not_prolong_a_rest() -> None:
    circuit = opened()
    for _ in range(50):
        circuit.failed(now=10.5, was_try=False)
    assert circuit.opens_at == 11.0


def test_a_cancelled_try_lets_another_follow() -> None:
    circuit = opened()
    circuit.sent()
    circuit.gave_up()
    assert circuit.lets_pass(11.0)


def test_throughput_is_tokens_a_second() -> None:
    meter = Throughput(now=0.0)
    for second in range(1, 121):
        meter.add(100, now=float(second))
    assert 95 < meter.rate(120.0) < 105
    assert meter.rate(300.0) < 1
    young = Throughput(now=0.0)
    young.add(50, now=1.0)
    assert 45 < young.rate(1.0) < 55
