"""A short run of the fuzzers in `fuzz/`: what they found before, and some examples in a fixed order."""

import pytest
from hypothesis import HealthCheck, given, settings

from fuzz import files, model_texts


@pytest.mark.parametrize("text", model_texts.CORPUS, ids=range(len(model_texts.CORPUS)))
def test_texts_that_were_misread_are_read_or_refused(text):
    model_texts.check(text)


@settings(deadline=None, max_examples=400, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(model_texts.TEXTS)
def test_hostile_texts_are_read_or_refused(text):
    model_texts.check(text)


@pytest.mark.parametrize("kind", files.KINDS, ids=[kind.name for kind in files.KINDS])
def test_files_with_a_bit_flipped_are_refused(kind):
    for content in files.flips(kind, 97):
        files.check_damaged(kind, content)


@settings(deadline=None, max_examples=150, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(files.damaged())
def test_damaged_files_are_refused(one):
    files.check_damaged(*one)


@settings(deadline=None, max_examples=150, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(files.altered())
def test_altered_files_are_read_or_refused(one):
    files.check_altered(*one)
