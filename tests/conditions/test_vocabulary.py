import numpy as np
import pytest
from numpy.testing import assert_array_equal

from taming_jax.conditions import Vocabulary, image_tokens

LABELS = np.array([0, 2])


def test_labels_follow_the_codes_and_nothing_follows_the_labels():
    vocabulary = Vocabulary(codes=16, classes=3)
    assert_array_equal(vocabulary.label_tokens(LABELS), [[16], [18]])
    assert_array_equal(vocabulary.no_label(2), [[19], [19]])
    assert vocabulary.size == 20


def test_an_unconditional_sequence_begins_with_a_token_of_its_own():
    vocabulary = Vocabulary(codes=16)
    assert_array_equal(vocabulary.condition_tokens(None, 2), [[16], [16]])
    assert vocabulary.size == 17


def test_the_papers_labels_are_said_with_the_tokens_of_codes():
    vocabulary = Vocabulary(codes=16, classes=3, shared=True)
    assert_array_equal(vocabulary.label_tokens(LABELS), [[0], [2]])
    assert vocabulary.size == 16


def test_the_papers_unconditional_sequence_begins_with_token_0():
    vocabulary = Vocabulary(codes=16, shared=True)
    assert_array_equal(vocabulary.condition_tokens(None, 2), [[0], [0]])


def test_a_shared_vocabulary_has_a_code_for_every_label():
    with pytest.raises(ValueError, match=r"17 classes with 16 codes.*False"):
        Vocabulary(codes=16, classes=17, shared=True)


def test_codes_are_read_row_by_row():
    codes = np.arange(12).reshape(2, 2, 3)
    assert_array_equal(image_tokens(codes), [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]])
