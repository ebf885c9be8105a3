import re

from dso.inference.serving import Metrics
from dso.inference.serving.metrics import Counter, Histogram

SAMPLE = re.compile(r'^([a-z_]+)(?:\{([a-z]+)="([^"]*)"\})? ([0-9.e+-]+)$')


def read(text):
    """{(name, label): value} of a page in the text format, every line of which is checked."""
    kinds, samples = {}, {}
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            kinds[name] = kind
        elif not line.startswith("# HELP "):
            match = SAMPLE.match(line)
            assert match, line
            name, _, label, value = match.groups()
            family = re.sub("_(bucket|sum|count)$", "", name)
            assert name in kinds or kinds.get(family) == "histogram", line
            samples[name, label] = float(value)
    return samples


def test_the_page_is_in_the_text_format():
    metrics = Metrics()
    metrics.requests.add(value="200")
    metrics.requests.add(value="200")
    metrics.requests.add(value="429")
    metrics.answer_tokens.add(12)
    metrics.seconds.see(0.3)
    samples = read(metrics.text(waiting=3, running=2))
    assert samples["dso_requests_total", "200"] == 2
    assert samples["dso_requests_total", "429"] == 1
    assert samples["dso_answer_tokens_total", None] == 12
    assert samples["dso_prompt_tokens_total", None] == 0
    assert samples["dso_queue_rows", None] == 3
    assert samples["dso_running_rows", None] == 2
    assert samples["dso_request_seconds_count", None] == 1
    assert samples["dso_request_seconds_bucket", "0.25"] == 0
    assert samples["dso_request_seconds_bucket", "0.5"] == 1


def test_buckets_hold_what_is_at_most_their_bound_and_add_up():
    histogram = Histogram("h", "says", (1, 2))
    for value in (0.5, 1, 1.5, 2, 3):
        histogram.see(value)
    assert histogram.lines()[2:] == [
        'h_bucket{le="1"} 2', 'h_bucket{le="2"} 4', 'h_bucket{le="+Inf"} 5', "h_sum 8.0",
        "h_count 5",
    ]  # fmt: skip


def test_a_counter_without_a_label_is_there_before_anything_is_counted():
    assert Counter("c", "says").lines()[-1] == "c 0"
    assert Counter("c", "says", "status").lines()[-1] == "# TYPE c counter"
