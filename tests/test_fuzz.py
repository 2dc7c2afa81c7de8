"""A short run of the fuzzers in `fuzz/`: what they found before, and some examples in a fixed order."""

import pytest
from hypothesis import HealthCheck, given, settings

from fuzz import model_texts


@pytest.mark.parametrize("text", model_texts.CORPUS, ids=range(len(model_texts.CORPUS)))
def test_texts_that_were_misread_are_read_or_refused(text):
    model_texts.check(text)


@settings(deadline=None, max_examples=400, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(model_texts.TEXTS)
def test_hostile_texts_are_read_or_refused(text):
    model_texts.check(text)
