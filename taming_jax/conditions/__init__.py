"""What a prior can be told, and how: everything of it becomes tokens."""

from taming_jax.conditions.table import CONDITIONS
from taming_jax.conditions.vocabulary import Vocabulary, codes_of, image_tokens

__all__ = ["CONDITIONS", "Vocabulary", "codes_of", "image_tokens"]
